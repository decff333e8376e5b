#!/usr/bin/env python3
"""Prints the tables of docs/benchmarks.md from what the benchmarks printed.

    tables.py forward FORMAT=forward_bench.json ...     one column per file
    tables.py kernels kernels_bench.json PREFIX         one row per shape, one column per format
    tables.py single kernels_bench.json FORMAT          ours, and ours by oneDNN's
"""

import json
import pathlib
import sys


def read(path):
    """The JSON values of a file, one behind the other, merged."""
    text, values, at = pathlib.Path(path).read_text().strip(), {}, 0
    while at < len(text):
        value, at = json.JSONDecoder().raw_decode(text, at)
        values.update(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return values


def cases_of(values):
    return {case["name"]: case for case in values["cases"]}


def rate(value):
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def share(case):
    return f"{case['share_median']:.0%}".replace("%", " %")


def row(cells):
    print("| " + " | ".join(cells) + " |")


def header(cells):
    row(cells)
    row(["---"] * len(cells))


def forward(files):
    runs = {label: read(path) for label, path in (file.split("=", 1) for file in files)}
    header(["", *runs])
    cases = {label: cases_of(run) for label, run in runs.items()}
    row(["`read`, GB/s", *(f"{of['read']['median']:.0f}" for of in cases.values())])
    for name in next(iter(runs.values()))["tokens_per_second"]:
        cells = [name]
        for label, run in runs.items():
            median, best = run["tokens_per_second"][name]
            cells.append(f"{median:,.0f}, {best:,.0f} ({share(cases[label][name])})")
        row(cells)


def kernels(path, prefix):
    """Names are `PREFIX FORMAT SHAPE`."""
    table, formats = {}, []
    for case in read(path)["cases"]:
        if not case["name"].startswith(prefix + " "):
            continue
        _, name, shape = case["name"].split(" ", 2)
        if name not in formats:
            formats.append(name)
        table.setdefault(shape, {})[name] = f"{rate(case['median'])} ({share(case)})"
    header(["", *formats])
    for shape, cells in table.items():
        row([shape, *(cells[name] for name in formats)])


def single(path, name):
    values = read(path)
    cases = cases_of(values)
    peak = cases["int8 peak 1 thread" if name == "int8" else "bf16 peak 1 thread"]["median"]
    header(["m, n × k", "ours", "÷ oneDNN", "share of peak"])
    for label, case in cases.items():
        if label.startswith(f"single {name} "):
            _, _, _, m, _, n, _, k = label.split()
            row([f"{m}, {n} × {k}", rate(case["median"]), f"{case['share_median']:.2f} ×",
                 f"{case['median'] / peak:.0%}".replace("%", " %")])


def main():
    kind, *arguments = sys.argv[1:]
    if kind == "forward":
        forward(arguments)
    else:
        {"kernels": kernels, "single": single}[kind](*arguments)


if __name__ == "__main__":
    main()
