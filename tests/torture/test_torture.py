"""Drives `wideep serve` hard from 500 connections at once and looks at what is left afterwards: no KV block, no
descriptor, no thread, no memory, and the same answer as before. Arguments: the binary, the seconds to go on for."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import storm

WIDEEP, SECONDS = sys.argv[1], float(sys.argv[2])
MODEL = pathlib.Path(__file__).resolve().parents[2] / "models/demo"
KEY = "sk-test"
CONNECTIONS = 500
BODY_BYTES_MAX = 1 << 20
PATIENCE_S = 300
# What an allocator may keep to itself; a leak of one body or answer in each storm is more than that after a few.
GROWTH_BYTES_MAX = 64 << 20


class Server:
    def __init__(self, folder):
        self.log = open(folder / "log", "w+")
        ready = folder / "url"
        self.process = subprocess.Popen(
            [WIDEEP, "serve", MODEL, "--port", "0", "--api-key", KEY, "--ready-file", ready,
             "--max-body-bytes", str(BODY_BYTES_MAX), "--kv-cache-memory-bytes", "16M", "--max-num-seqs", "16",
             "--max-num-queued-reqs", "100", "--max-connections", str(CONNECTIONS + 100)], stderr=self.log)
        self.wait_for("the server", lambda: ready.exists() or self.process.poll() is not None)
        self.url = ready.read_text().strip()

    def wait_for(self, what, condition):
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up, f"waited in vain for {what}"
            time.sleep(0.02)

    def request(self, path, body=None):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if body else None,
                                         {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.read().decode()

    def answer(self):
        body = {"messages": [{"role": "user", "content": "What is a cynic?"}], "max_tokens": 60, "seed": 5,
                "temperature": 1, "logprobs": True}
        choice = json.loads(self.request("/v1/chat/completions", body))["choices"][0]
        return choice["message"]["content"], choice["logprobs"]

    def metric(self, name):
        return float(re.search(rf"^{name}{{[^}}]*}} (\S+)$", self.request("/metrics"), re.M).group(1))

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def status(self, key):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+)", text, re.M).group(1))


def wait_until_idle(server):
    for gauge in ("vllm:num_requests_running", "vllm:num_requests_waiting", "wideep:queued_tokens",
                  "vllm:kv_cache_usage_perc"):
        server.wait_for(gauge + " to be 0", lambda: server.metric(gauge) == 0)


def check_nothing_is_left(server, before, answer):
    wait_until_idle(server)
    assert server.metric("wideep:kv_blocks_free") == before["blocks"]
    # One connection more or less: that of the question itself.
    server.wait_for("closed connections", lambda: server.open_files() <= before["files"] + 1)
    assert server.status("Threads") == before["threads"]
    assert server.answer() == answer
    growth = server.status("VmRSS") * 1024 - before["bytes"]
    assert growth <= GROWTH_BYTES_MAX, f"{growth >> 20} MiB more than before"


def main():
    seed = int(os.environ.get("WIDEEP_SEED", "1"))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(pathlib.Path(folder))
        try:
            answer = server.answer()
            run_storms(server, answer, seed)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE_S) == 0
        finally:
            if server.process.poll() is None:
                server.process.kill()
            server.log.seek(0)
            print(server.log.read()[-3000:])


def run_storms(server, answer, seed):
    wait_until_idle(server)  # an answer is out a little before its blocks are counted as free
    start = {"files": server.open_files(), "blocks": server.metric("wideep:kv_blocks_free"),
             "threads": server.status("Threads")}
    deadline = time.monotonic() + SECONDS
    number = 0
    while number < 2 or time.monotonic() < deadline:
        print(f"storm {number} of seed {seed + number}", flush=True)
        seen = storm.storm(server.url, KEY, CONNECTIONS, seed + number, BODY_BYTES_MAX)
        print(dict(seen), flush=True)
        assert seen[200] > 0 and seen[400] > 0 and seen[401] > 0 and seen[413] > 0, seen
        # The first storm shows how much memory so many connections take.
        if number == 0:
            start["bytes"] = server.status("VmRSS") * 1024
        check_nothing_is_left(server, start, answer)
        number += 1


if __name__ == "__main__":
    main()
