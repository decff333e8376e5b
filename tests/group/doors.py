"""Launchers with their ranks for tests, and load whose every outcome is judged.

Reads the binary from the test's first argument.
"""
import json
import pathlib
import random
import sys
import threading
import time

import ranks
from ranks import Serve, answers_of_one_rank, call

WIDEEP = sys.argv[1]
MODEL = "dsv3-tiny-mtp"
# What a client may see of a group that has lost a rank; all of them may be sent again.
RETRYABLE = {502, 503, 504}


class Door(Serve):
    """The launcher with its ranks."""

    def __init__(self, num_ranks, *arguments, model=MODEL, **options):
        super().__init__(WIDEEP, ranks.model_path(model), "--data-parallel-size", num_ranks, "--enable-expert-parallel",
                         *arguments, **options)

    def __enter__(self):
        try:
            return self.await_ready()
        except BaseException:
            self.abandon()
            raise

    def __exit__(self, *_):
        self.abandon()

    def is_healthy(self):
        return call(self.url, "/health").status == 200

    def pids(self):
        """Of the ranks, by rank."""
        return {ranks.rank_of(pid): pid for pid in ranks.children_of(self.process.pid)}

    def remains(self):
        return [path for path in pathlib.Path(self.folder.name).iterdir() if path.name.startswith("wideep-")]

    def engines(self):
        """Ranks that answer behind this door."""
        text = call(self.url, "/metrics").body
        return sorted({int(line.split('engine="')[1].split('"')[0]) for line in text.splitlines()
                       if line.startswith("vllm:num_requests_running{")})


class Load:
    """Clients that ask a door without a pause, half of them for streams, from entering to leaving."""

    def __init__(self, door, num_clients=6):
        self.door = door
        self.requests = ranks.requests_of(MODEL)
        self.expected = [answers[0]["tokens"] for answers in answers_of_one_rank(WIDEEP, MODEL, self.requests)]
        self.outcomes = []
        self.stop = threading.Event()
        self.clients = [threading.Thread(target=self.ask, args=(seed,)) for seed in range(num_clients)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for client in self.clients:
            client.join()

    def ask(self, seed):
        choose = random.Random(seed)
        while not self.stop.is_set():
            i = choose.randrange(len(self.requests))
            stream = choose.random() < 0.5
            start = time.monotonic()
            answer = call(self.door.url, "/v1/completions", {**self.requests[i], "stream": stream, "n": 1}, timeout=ranks.PATIENCE_S)
            self.outcomes.append((i, stream, start, time.monotonic(), answer))
            if answer.status != 200:
                self.stop.wait(0.05)

    def check(self, test, what):
        """Each is whole with its own tokens or ends with an error that may be sent again, and none waited for a rank that
        nobody held for lost: what else would end its wait takes longer."""
        kinds = [self.kind_of(test, outcome) for outcome in self.outcomes]
        print(f"{what}: " + ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))), file=sys.stderr)
        test.assertGreater(len(set(kinds)), 1, "the loss was noticed by nobody")
        slowest = max(end - start for _, _, start, end, _ in self.outcomes)
        test.assertLess(slowest, ranks.PROGRESS_DEADLINE_S, "a request waited for a lost rank")

    def kind_of(self, test, outcome):
        i, stream, _, _, answer = outcome
        if answer.status == 200 and not stream and not answer.error:
            test.assertEqual(answer.json()["choices"][0]["token_ids"], self.expected[i], "wrong tokens")
            return "whole"
        if answer.status == 200 and stream:
            tokens, end = self.read_stream(answer)
            test.assertEqual(tokens, self.expected[i][:len(tokens)], "wrong tokens")
            test.assertTrue(end != "done" or tokens == self.expected[i], "an answer that looks whole")
            return f"stream {end}"
        if answer.status in RETRYABLE:
            test.assertIn("retry-after", answer.headers)
            return f"{answer.status} {answer.json()['error']['code']}"
        return f"cut ({type(answer.error).__name__})" if answer.error else test.fail(f"{answer.status} {answer.body}")

    def read_stream(self, answer):
        """Tokens that came, and how the stream ended: done, with an error event, or cut."""
        tokens, end = [], "cut"
        for event in answer.body.split("\n\n"):
            if not event.startswith("data: "):
                continue
            if event == "data: [DONE]":
                end = "done" if end == "cut" else end
                continue
            try:
                document = json.loads(event[len("data: "):])
            except json.JSONDecodeError:
                return tokens, "cut"
            if "error" in document:
                end = f"error {document['error']['code']}"
            for choice in document.get("choices", []):
                tokens += choice.get("token_ids") or []
        return tokens, end
