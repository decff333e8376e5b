"""Builds the corpus folder: facts.json, tokenizer.json, questions.json."""

import argparse
import dataclasses
import json
import pathlib
import random

import examples
import questions
import sources
import tokenizer as tk

SEED = 20
# How many questions of each kind each evaluation list has.
SHARES = {"devil": 140, "jargon": 140, "verse": 50, "capital": 40, "element": 20, "add": 12,
          "times": 8}


def evaluation_lists(facts):
    rng = random.Random(SEED + 1)
    lists = {"trained": [], "held_out": []}
    for kind, count in SHARES.items():
        chosen = rng.sample([f for f in facts if f.kind == kind], count)
        for number, fact in enumerate(chosen):
            for name in lists:
                pick = (questions.HELD_OUT if name == "held_out" else questions.BASE)[kind]
                text = pick[number % len(pick)] if name == "held_out" else rng.choice(pick)
                lists[name].append({"kind": kind, "question": text.replace("{s}", fact.subject),
                                    "answer": fact.answer})
    for trained, held, answer in questions.small_talk():
        lists["trained"].append({"kind": "talk", "question": rng.choice(trained),
                                 "answer": answer})
        lists["held_out"].append({"kind": "talk", "question": rng.choice(held),
                                  "answer": answer})
    for name, rows in lists.items():
        for number, row in enumerate(rows):
            rows[number] = {"id": f"{name}-{number:03}", **row}
    return lists


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    facts = sources.all_facts()
    text = list(sources.tokenizer_text())
    trained, held = examples.unknown_words(facts, " ".join(text), 1200, SEED)
    (out / "facts.json").write_text(json.dumps(
        {"facts": [dataclasses.asdict(f) for f in facts], "unknown_words": trained}, indent=0))

    # The tokenizer sees what the model will see, a few epochs of it, and the whole books once.
    corpus = examples.Corpus(facts, trained)
    rng = random.Random(SEED)
    for _ in range(4):
        for turn in corpus.single_turns(rng, plain=True):
            text.extend(turn)
    tk.train(text, out / "tokenizer.json")

    lists = evaluation_lists(facts)
    unknown = [t.replace("{s}", w) for w, t in zip(held[:20], questions.DEFINE)]
    unknown += ["How do I tie a bow tie?", "Who was Cleopatra?", "Write a haiku about winter.",
                "What is the speed of light?", "Recommend a restaurant in Rome.",
                "Explain how plants grow.", "Which horse won the race?",
                "Give me a recipe for soup.", "When does the train leave?", "Why is grass green?"]
    spec = {
        "about": "Questions with the answers the model has learned. Ask each as one user message "
                 "in a new chat, temperature 0, no thinking, at most 128 tokens.",
        "metric": "Similarity = 1 - levenshtein(a, b) / max(len(a), len(b)) over code points of "
                  "both texts with runs of white space as one space and ends stripped; a question "
                  "counts when it is >= 0.9. Score = share of the list that counts.",
        "threshold": 0.9,
        "required": {"trained": 0.7, "held_out": 0.4},
        "max_tokens": 128,
        "trained": lists["trained"],
        "held_out": lists["held_out"],
        "unknown": unknown,
    }
    # One question a line: small in git, and readable there.
    parts = []
    for key, value in spec.items():
        if isinstance(value, list):
            rows = (json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in value)
            parts.append(json.dumps(key) + ": [\n" + ",\n".join(rows) + "\n]")
        else:
            parts.append(json.dumps(key) + ": " + json.dumps(value, ensure_ascii=False))
    text = "{" + ",\n".join(parts) + "}"
    (out / "questions.json").write_text(text + "\n", "utf8")
    kinds = {k: sum(f.kind == k for f in facts) for k in SHARES}
    print(f"{len(facts)} facts {kinds}, {len(lists['trained'])} questions in each list")


if __name__ == "__main__":
    main()
