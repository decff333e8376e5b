#!/usr/bin/env python3
"""Draws where the time of a step goes, from what forward_bench printed.

    plot_phases.py OUT.svg LABEL=forward_bench.json ...

One bar per file and case; its length is the time per token relative to the longest of the case.
"""

import json
import pathlib
import sys

CASES = ["decode 1", "decode 16", "decode 32", "prefill 512", "prefill 2048"]
# What is drawn together, and its colour.
PARTS = {
    "experts": (["experts"], "#1f5fa8"),
    "shared expert": (["shared"], "#5b9bd5"),
    "dense layer": (["dense"], "#9dc3e6"),
    "projections": (["project", "output"], "#2e8b57"),
    "absorption": (["absorb"], "#8fcf9f"),
    "attention": (["attention"], "#e08a1e"),
    "head": (["head"], "#8064a2"),
    "router": (["router"], "#c0504d"),
    "norms, dispatch, combine": (["embed", "norm", "dispatch", "combine"], "#7f7f7f"),
}
LEFT, WIDTH, BAR, GAP = 110, 620, 16, 4


def read(path):
    """The JSON values of a file, one behind the other, merged."""
    text, values, at = pathlib.Path(path).read_text(), {}, 0
    while at < len(text.rstrip()):
        value, at = json.JSONDecoder().raw_decode(text, at)
        values.update(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return values


def text(x, y, words, anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{words}</text>")


def bar(y, label, values, case, longest):
    rate = values["tokens_per_second"][case][0]
    shares = values["phase_shares"][case]
    x, out = LEFT, [text(LEFT - 6, y + 12, label, "end")]
    for name, (phases, colour) in PARTS.items():
        share = sum(shares[phase] for phase in phases)
        width = share * WIDTH * (1 / rate) / longest
        out.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" '
                   f'fill="{colour}"><title>{name}: {share:.1%}</title></rect>')
        if width > 26:
            out.append(f'<text x="{x + width / 2:.0f}" y="{y + 12}" text-anchor="middle" '
                       f'fill="white">{share:.0%}</text>')
        x += width
    out.append(text(x + 5, y + 12, f"{rate:,.0f} tok/s"))
    return out


def main():
    runs = {}
    for argument in sys.argv[2:]:
        label, path = argument.split("=", 1)
        runs[label] = read(path)
    out, y = [], 20
    for i, (name, (_, colour)) in enumerate(PARTS.items()):
        x = LEFT + i % 5 * 150
        out.append(f'<rect x="{x}" y="{y + i // 5 * 18 - 10}" width="11" height="11" '
                   f'fill="{colour}"/>')
        out.append(text(x + 15, y + i // 5 * 18, name))
    y += 48
    for case in CASES:
        out.append(text(LEFT, y - 5, case, weight="bold"))
        longest = max(1 / run["tokens_per_second"][case][0] for run in runs.values())
        for label, values in runs.items():
            out += bar(y, label, values, case, longest)
            y += BAR + GAP
        y += 26
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 130}" height="{y}" '
           'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" '
           'fill="white"/>')
    pathlib.Path(sys.argv[1]).write_text("\n".join([svg, *out, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
