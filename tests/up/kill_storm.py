"""Kills one process of a deployment at random, again and again, under load.

    kill_storm.py WIDEEP [--kills N] [--seed S] [--shape role=ranks,...]

What must hold: a request ends within its deadline, with the right tokens or with an error that says "try again"; a
stream that is cut was right as far as it went; the deployment is whole again within seconds; afterwards every block
is free and nothing is left.
"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import select
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from deployment import DEMO, Client, Deployment  # noqa: E402
from test_up import OneRank, shape, told_in_stream  # noqa: E402

DEADLINE_S = 60  # of a request
RETRYABLE = {429, 502, 503, 504}
QUESTIONS = ["What is a cynic?", "Define the word economy.", "Who are you?", "What is the capital of France?",
             "Tell me something about a storm that comes again and again, and about what it leaves behind."]
NUM_CLIENTS = 4


def request(question):
    return {"messages": [{"role": "user", "content": question}], "max_tokens": 32, "temperature": 0,
            "ignore_eos": True, "logprobs": True}


class Load:
    """Clients that ask and judge what they get, until told to stop."""

    def __init__(self, url, expected, seed):
        self.url, self.expected, self.seed = url, expected, seed
        self.seen = collections.Counter()
        self.wrong = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(i,)) for i in range(NUM_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def client(self, number):
        chance = random.Random(f"{self.seed} {number}")
        client = Client(self.url, DEADLINE_S)
        while not self.stopping.is_set():
            start = time.monotonic()
            try:
                outcome = self.ask(client, chance.choice(QUESTIONS), chance.random() < 0.5)
            except TimeoutError as error:
                outcome = "late"
                self.wrong.append(f"no answer in time: {error}")
            except (OSError, http.client.HTTPException) as error:
                outcome = f"connection: {type(error).__name__}"
            except Exception as error:  # noqa: BLE001: whatever it is, it is a finding
                outcome = "wrong"
                self.wrong.append(repr(error))
            if time.monotonic() - start > DEADLINE_S:
                self.wrong.append(f"{outcome} after {time.monotonic() - start:.0f} s")
            self.seen[outcome] += 1
            if outcome != "ok":
                self.stopping.wait(0.05)

    def ask(self, client, question, stream):
        text, logprobs, finish = self.expected[question]
        if not stream:
            status, _, answer = client.post("/v1/chat/completions", request(question))
            if status == 200:
                choice = answer["choices"][0]
                assert choice["message"]["content"] == text, (question, choice)
                assert choice["logprobs"]["content"] == logprobs, (question, choice)
                return "ok"
            assert status in RETRYABLE, (status, answer)
            return f"HTTP {status}"
        status, _, events = client.stream("/v1/chat/completions", request(question))
        if status != 200:
            assert status in RETRYABLE, (status, events)
            return f"HTTP {status}"
        errors = [event for event in events if event != "[DONE]" and "error" in event]
        if events and events[-1] == "[DONE]" and not errors:
            assert told_in_stream(events) == (text, logprobs, finish), (question, events)
            return "ok"
        # Cut, or ended by an error event: right as far as it went.
        so_far = [event for event in events if event != "[DONE]" and "error" not in event]
        part, part_logprobs, _ = told_in_stream([*so_far, "[DONE]"])
        assert text.startswith(part) and logprobs[:len(part_logprobs)] == part_logprobs, (question, events)
        return "cut" if not errors else f"error event: {errors[0]['error'].get('code')}"

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(2 * DEADLINE_S)
            assert not thread.is_alive(), "a request never ended"


def storm(up, expected, kills, seed):
    chance = random.Random(seed)
    names = set(up.endpoints())
    load = Load(up.url, expected, seed)
    back = []
    try:
        for _ in range(kills):
            select.select([], [], [], chance.uniform(0, 1.5))  # when in a request it strikes is up to chance
            pid, what = chance.choice(sorted(up.children().items(), key=lambda item: item[1]))
            start = time.monotonic()
            up.kill(pid)
            up.wait_until_whole(names)
            back.append((what.split()[0], time.monotonic() - start))
            assert up.process.poll() is None, "the deployment ended"
    finally:
        load.stop()
    assert not load.wrong, load.wrong[:3]
    assert load.seen["ok"] > 0, load.seen
    up.check_nothing_is_used()
    return load.seen, back


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wideep")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--shape", default="prefill=2,decode=2")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}", flush=True)
    groups = [(part.split("=")[0], int(part.split("=")[1])) for part in options.shape.split(",")]
    with OneRank(DEMO) as alone:
        expected = {question: told_in_stream(alone.stream("/v1/chat/completions", request(question))[2])
                    for question in QUESTIONS}
    with Deployment(options.wideep, shape(DEMO, groups)) as up:
        seen, back = storm(up, expected, options.kills, seed)
        up.stop()
    print(json.dumps({"seed": seed, "outcomes": dict(seen), "whole_again_after_s": {
        kind: [round(seconds, 2) for other, seconds in back if other == kind] for kind, _ in back}}))


if __name__ == "__main__":
    main()
