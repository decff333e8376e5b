#!/usr/bin/env python3
"""Judges whole prompts: the chat templates that models ship, on random conversations.

chat_oracle.py DRIVER NPM_DIR TOKENIZER... [--count N] [--seed S]

The text must be Jinja2's. Where no content looks like a control token, the tokens must be those of
Hugging Face's tokenizers for that whole text. Where some does, the text must still be the same, and
the control tokens must be those of the same conversation with harmless content.
"""

import argparse
import json
import os
import random
import sys

import tokenizers

import hf_jinja
from driver import Driver
from strings import Strings


def is_control(token):
    content = token["content"]
    return token["special"] or (
        len(content.encode()) >= 3 and (content[0] + content[-1]) in ("<>", "[]")
    )


class Conversations:
    """Random message lists. `content()` makes the strings."""

    def __init__(self, seed, content):
        self.random = random.Random(seed)
        self.content = content

    def tool_call(self):
        return {
            "type": "function", "id": "c1",
            "function": {"name": "get_x", "arguments": json.dumps({"q": self.content()})},
        }

    def message(self, role):
        message = {"role": role, "content": self.content()}
        if role == "assistant" and self.random.random() < 0.3:
            message["content"] = None if self.random.random() < 0.5 else self.content()
            message["tool_calls"] = [self.tool_call() for _ in range(self.random.randint(1, 2))]
        if role == "assistant" and self.random.random() < 0.2:
            message["reasoning_content"] = self.content()
        return message

    def variables(self):
        roles = ["system"] if self.random.random() < 0.5 else []
        for _ in range(self.random.randint(1, 4)):
            roles += ["user", "assistant"]
            if self.random.random() < 0.3:
                roles += ["tool", "assistant"]
        roles = roles if self.random.random() < 0.3 else roles[:-1]
        variables = {"messages": [self.message(role) for role in roles]}
        if self.random.random() < 0.8:
            variables["add_generation_prompt"] = self.random.random() < 0.8
        if self.random.random() < 0.3:
            variables["tools"] = [
                {"type": "function", "function": {"name": "get_x", "description": self.content(),
                 "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}}
            ]
        if self.random.random() < 0.3:
            variables["enable_thinking"] = self.random.random() < 0.5
        return variables


class Judge:
    def __init__(self, driver, folder, seed):
        with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
            added = json.load(file)["added_tokens"]
        with open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8") as file:
            config = json.load(file)
        self.control = {token["id"] for token in added if is_control(token)}
        looks = [token["content"] for token in added if token["id"] in self.control]
        self.original = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.trusted = {}
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            token = config.get(key)
            if token:
                self.trusted[key] = token["content"] if isinstance(token, dict) else token
        self.source = config["chat_template"]
        self.template = hf_jinja.environment().from_string(self.source)
        self.renderer = Driver(driver, "render")
        self.chat = Driver(driver, "chat", folder)
        self.strings = Strings(seed, looks)
        self.conversations = Conversations(seed, self.harmless)
        self.looks = looks
        self.problems = []
        self.refused = 0

    def harmless(self):
        """Text that makes no control token, in any tokenizer."""
        text = self.strings.text()
        return text.replace("<", "(").replace("[", "(")

    def check(self, what, variables, ours, theirs):
        if ours != theirs:
            self.problems.append(
                f"{what} of {json.dumps(variables)[:1500]}\n  ours   {ours!r}\n  theirs {theirs!r}")

    def text(self, variables):
        """Both texts must be equal, or both refused (None)."""
        try:
            theirs = self.template.render(**{**variables, **self.trusted})
        except Exception:  # pylint: disable=broad-except
            theirs = None
        request = {"template": self.source, "trusted": self.trusted, "variables": variables,
                   "now": hf_jinja.NOW}
        answer = json.loads(self.renderer.ask(json.dumps(request).encode()))
        ours = None if isinstance(answer, dict) else "".join(part[1] for part in answer)
        self.check("text", variables, ours, theirs)
        return theirs

    def ids(self, variables):
        return self.chat.ids(json.dumps(variables).encode())

    def poisoned(self, variables):
        """The same conversation with text of control tokens in every content."""
        def poison(text):
            position = self.strings.random.randint(0, len(text))
            look = self.strings.random.choice(self.looks)
            while "think" in look:  # templates themselves look for these
                look = self.strings.random.choice(self.looks)
            return text[:position] + look + text[position:]
        copy = json.loads(json.dumps(variables))
        for message in copy["messages"]:
            if message["content"]:
                message["content"] = poison(message["content"])
        return copy

    def run(self, count):
        for _ in range(count):
            variables = self.conversations.variables()
            text = self.text(variables)
            if text is None:
                self.refused += 1
                continue
            ids = self.ids(variables)
            theirs = self.original.encode(text, add_special_tokens=False).ids
            self.check("tokens", variables, ids, theirs)
            attack = self.poisoned(variables)
            if self.text(attack) is not None:
                kept = [token for token in self.ids(attack) if token in self.control]
                self.check("control tokens", attack, kept, [t for t in ids if t in self.control])
            if len(self.problems) >= 5:
                break
        self.renderer.close()
        self.chat.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("npm_dir")
    parser.add_argument("tokenizer", nargs="+")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    failed = False
    for name in arguments.tokenizer:
        folder = os.path.join(
            arguments.npm_dir, "node_modules", "@lenml", f"tokenizer-{name}", "models"
        )
        judge = Judge(arguments.driver, folder, arguments.seed)
        judge.run(arguments.count)
        for problem in judge.problems:
            print(problem)
        failed = failed or bool(judge.problems) or judge.refused > arguments.count // 2
        print(f"{name}: {arguments.count} conversations, {judge.refused} refused by both, seed "
              f"{arguments.seed}: {len(judge.problems)} differences")
    return 1 if failed else 0


sys.exit(main())
