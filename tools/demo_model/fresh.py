"""Writes a question list from the FRESH templates, for `wideep bench quality --questions`."""

import argparse
import json
import pathlib
import random

import corpus
import questions
import sources

SEED = 77


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    rng, rows, facts = random.Random(SEED), [], sources.all_facts()
    for kind, count in corpus.SHARES.items():
        chosen = rng.sample([f for f in facts if f.kind == kind], count)
        for number, fact in enumerate(chosen):
            templates = questions.FRESH[kind]
            text = templates[number % len(templates)].replace("{s}", fact.subject)
            rows.append({"id": f"fresh-{len(rows):03}", "kind": kind, "question": text,
                         "answer": fact.answer})
    args.out.write_text(json.dumps({"fresh": rows}, indent=0))


if __name__ == "__main__":
    main()
