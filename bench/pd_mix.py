#!/usr/bin/env python3
"""Long prompts mixed with running streams, on the same cores in three ways: ranks that do both, the same with small
chunks, and a prefill rank beside a decode rank. Prints JSON: for each way and load the time to the first token of the
long prompts and the gaps between the tokens of the streams (p50, p99, milliseconds), and the tokens per second of both.

    bench/pd_mix.py WIDEEP MODEL [--rounds N] [--seconds S] [--streams N] [--long-tokens N] [--long-rate R]

The ways take turns within every round. Each is a whole `wideep up`: gateway, picker, sidecars, ranks, so that all pay
for the same path. Prompts are token numbers drawn by a seed, every one its own. The same arrivals in every way.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

VOCABULARY = 4096  # token numbers below this are drawn
STREAM_PROMPT = 8  # tokens: fewer than the picker sends to a prefill rank
STREAM_TOKENS = 256
LONG_ANSWER = 8

WAYS = {
    "aggregated": "groups: [{name: both, role: decode, ranks: 2, threads: 1}]",
    "aggregated, chunks of 64": "groups: [{name: both, role: decode, ranks: 2, threads: 1, flags: {max-num-batched-tokens: 64}}]",
    "prefill | decode": "groups: [{name: prefill, role: prefill, ranks: 1, threads: 1}, {name: decode, role: decode, ranks: 1, threads: 1}]",
}


@contextlib.contextmanager
def deployment(wideep, model, groups):
    """Yields host and port of a gateway whose ranks are ready."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = pathlib.Path(folder, "cluster.yaml")
        ready = pathlib.Path(folder, "ready")
        cluster.write_text(f"model: {os.path.abspath(model)}\n{groups}\n")
        with open(pathlib.Path(folder, "log"), "w") as log:
            up = subprocess.Popen([wideep, "up", str(cluster), "--ready-file", str(ready)], stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + 300
            while not (ready.exists() and ready.read_text().strip()):
                if up.poll() is not None or time.monotonic() > give_up:
                    sys.exit("not ready:\n" + pathlib.Path(folder, "log").read_text()[-3000:])
                time.sleep(0.05)
            url = urllib.parse.urlparse(ready.read_text().strip())
            yield url.hostname, url.port
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(120)


def ask(address, prompt, max_tokens, stop=None):
    """Seconds from the request to each chunk with a token; an answer that `stop` cuts short counts as far as it came."""
    connection = http.client.HTTPConnection(*address, timeout=300)
    body = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, "stream": True}
    start = time.monotonic()
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {answer.read()[:300]}")
    times = []
    for line in answer:
        if line.startswith(b"data: {"):
            times.append(time.monotonic() - start)
        if stop is not None and stop.is_set():
            break
    connection.close()
    return times


def load(address, options, seed, long_rate):
    """Streams that never end, and long prompts at `long_rate` a second, for the time asked. Times in seconds."""
    draw = random.Random(seed)
    stop = threading.Event()
    gaps, first, faults = [], [], []
    begin = time.monotonic()

    def prompt(n, of):
        return [of.randrange(VOCABULARY) for _ in range(n)]

    def guarded(work):
        try:
            work()
        except Exception as fault:  # a load with a fault is no measurement
            faults.append(repr(fault))

    def stream(of):
        while not stop.is_set():
            times = ask(address, prompt(STREAM_PROMPT, of), STREAM_TOKENS, stop)
            gaps.extend(b - a for a, b in zip(times, times[1:]))

    def long(tokens):
        first.append(ask(address, tokens, LONG_ANSWER)[0])

    streams = [threading.Thread(target=guarded, args=(lambda i=i: stream(random.Random(f"{seed}/{i}")),))
               for i in range(options.streams)]
    for thread in streams:
        thread.start()
    longs, due = [], 0.0
    while long_rate > 0 and (due := due + draw.expovariate(long_rate)) < options.seconds:
        tokens = prompt(options.long_tokens, draw)
        time.sleep(max(0.0, begin + due - time.monotonic()))
        longs.append(threading.Thread(target=guarded, args=(lambda t=tokens: long(t),)))
        longs[-1].start()
    for thread in longs:
        thread.join()
    time.sleep(max(0.0, begin + options.seconds - time.monotonic()))
    lasted = time.monotonic() - begin
    stop.set()
    for thread in streams:
        thread.join()
    if faults:
        sys.exit(f"requests failed: {faults[:3]}")
    return gaps, first, lasted


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


def report(samples, options):
    gaps = [1e3 * g for s in samples for g in s[0]]
    first = [1e3 * t for s in samples for t in s[1]]
    lasted = sum(s[2] for s in samples)
    return {
        "itl_ms": {"p50": round(percentile(gaps, 50), 1), "p99": round(percentile(gaps, 99), 1), "max": round(max(gaps), 1), "count": len(gaps)},
        "stream_tokens_per_second": round(len(gaps) / lasted, 1),
        "long_ttft_ms": {"p50": round(percentile(first, 50)), "p99": round(percentile(first, 99)), "count": len(first)} if first else None,
        "prompt_tokens_per_second": round(len(first) * options.long_tokens / lasted, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("wideep")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--long-tokens", type=int, default=1024)
    parser.add_argument("--long-rate", type=float, default=0.2)
    options = parser.parse_args()
    samples = {(way, rate): [] for way in WAYS for rate in (0.0, options.long_rate)}
    for round_ in range(options.rounds):
        for way, groups in WAYS.items():
            with deployment(options.wideep, options.model, groups) as address:
                ask(address, list(range(STREAM_PROMPT)), 8)
                for rate in (0.0, options.long_rate):
                    print(f"round {round_ + 1} of {options.rounds}: {way}, {rate} long prompts/s", file=sys.stderr, flush=True)
                    samples[way, rate].append(load(address, options, round_, rate))
    print(json.dumps({
        "benchmark": "pd_mix", "model": os.path.basename(os.path.abspath(options.model)), "cores": os.cpu_count(),
        **{k: v for k, v in vars(options).items() if k not in ("wideep", "model")},
        "streams alone": {way: report(samples[way, 0.0], options) for way in WAYS},
        "with long prompts": {way: report(samples[way, options.long_rate], options) for way in WAYS},
    }, indent=2))


if __name__ == "__main__":
    main()
