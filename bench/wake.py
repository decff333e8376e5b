#!/usr/bin/env python3
"""How long a sleeping group takes to wake: bench/wake.py build/release/wideep [--rounds 200] [--ranks 2]

Asks for one token (greedy, three tokens of prompt, demo model): by turns a group of ranks and a rank by itself that have slept
for 30 ms; then the same group while another of its ranks generates. Of each request: seconds until the whole answer is here, and from its server's own metrics the time until it ran its first step
(vllm:request_queue_time_seconds) and until its first token (vllm:time_to_first_token_seconds). Prints JSON, microseconds.
"""
import argparse
import json
import pathlib
import socket
import statistics
import sys
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/group"))
import ranks  # noqa: E402 (beside the tests that use it)

REQUEST = {"prompt": [5, 6, 7], "max_tokens": 1, "temperature": 0}
ASLEEP_S = 0.03


class Target:
    """A rank and a connection to it that stays."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self.figures = self.metrics()

    def call(self, method, path, body=""):
        """In one packet, and read as little as can be: a library's client takes longer than the server."""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                            f"content-length: {len(body)}\r\n\r\n{body}".encode())
        text = b""
        while (end := text.find(b"\r\n\r\n")) < 0 or len(text) < end + 4 + self.length(text[:end]):
            text += self.socket.recv(1 << 20)
        assert text.startswith(b"HTTP/1.1 200"), text
        return text[end + 4:]

    def length(self, head):
        return int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])

    def metrics(self):
        sums = {}
        for line in self.call("GET", "/metrics").decode().splitlines():
            for name in ("queue", "first"):
                wanted = {"queue": "vllm:request_queue_time_seconds_sum", "first": "vllm:time_to_first_token_seconds_sum"}[name]
                if line.startswith(wanted):
                    sums[name] = float(line.rsplit(" ", 1)[1])
        return sums

    def ask(self):
        body = json.dumps(REQUEST)
        start = time.perf_counter()
        self.call("POST", "/v1/completions", body)
        answered = time.perf_counter() - start
        before, self.figures = self.figures, self.metrics()
        return {"answer": answered, "first_step": self.figures["queue"] - before["queue"],
                "first_token": self.figures["first"] - before["first"]}


def keep_busy(url, stop):
    """Generates on a rank until told to stop; the answer is read away."""
    while not stop.is_set():
        ranks.call(url, "/v1/completions", {**REQUEST, "max_tokens": 900, "ignore_eos": True})


def summary(samples):
    def of(name):
        values = sorted(sample[name] * 1e6 for sample in samples)
        return {"p50": round(statistics.median(values)), "p90": round(values[len(values) * 9 // 10]), "best": round(values[0])}
    return {name: of(name) for name in samples[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    samples = {"asleep": [], "awake": [], "alone": []}
    alone = ranks.Serve(options.binary, ranks.DEMO, "--threads", "1")
    try:
        alone.await_ready()
        with ranks.Ranks(options.binary, ranks.DEMO, [0] * options.ranks) as group:
            single, rank = Target(alone.url), Target(group.urls()[-1])
            for _ in range(options.rounds):
                time.sleep(ASLEEP_S)  # what is measured is the end of a sleep
                samples["alone"].append(single.ask())
                time.sleep(ASLEEP_S)
                samples["asleep"].append(rank.ask())
            stop = threading.Event()
            busy = threading.Thread(target=keep_busy, args=(group.urls()[0], stop))
            busy.start()
            for _ in range(options.rounds):
                time.sleep(ASLEEP_S)
                samples["awake"].append(rank.ask())
            stop.set()
            busy.join()
    finally:
        alone.abandon()
    print(json.dumps({"what": "wake", "ranks": options.ranks, "rounds": options.rounds,
                      "us": {name: summary(found[options.rounds // 10:]) for name, found in samples.items()}}, indent=1))


if __name__ == "__main__":
    main()
