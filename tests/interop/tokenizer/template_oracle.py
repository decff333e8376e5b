#!/usr/bin/env python3
"""Judges our chat templates against Jinja2 as Hugging Face sets it up, on random templates.

template_oracle.py DRIVER NPM_DIR [--count N] [--seed S]

Both must print the same, or both must refuse. Where only we refuse, the reason must be one that we
document: a limit or something the subset leaves out.
"""

import argparse
import json
import sys

import hf_jinja
from driver import Driver
from templates import VARIABLES, Templates

# What we refuse and Python does not.
OURS_ALONE = (
    "does not fit 64 bits",  # Python's integers have no end
    "deeper than",
    "cannot be printed",  # a function or generator as text
    "a slice needs ints",  # Jinja2's optimiser makes such slices of constants undefined
    "cannot be sliced",
)
# What Python prints for things that we have no text for.
PYTHONS_ALONE = (" object at 0x", "<built-in", "<function", "<bound method", "<Macro", "dict_keys(",
                 "dict_items(", "dict_values(", "<generator", "range(", "Markup(")
# Filters that give generators in Python, of which nothing has a length, give lists here.
GENERATORS = ("'reversed'", "'generator'")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("npm_dir")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    environment = hf_jinja.environment()
    driver = Driver(arguments.driver, "render")
    templates = Templates(arguments.seed)
    printed = refused = skipped = 0
    problems = []
    for _ in range(arguments.count):
        source = templates.template()
        try:
            theirs = environment.from_string(source).render(**VARIABLES)
            reason = None
        except Exception as error:  # pylint: disable=broad-except
            theirs = None
            reason = repr(error)
        request = {"template": source, "trusted": {}, "variables": VARIABLES, "now": hf_jinja.NOW}
        answer = json.loads(driver.ask(json.dumps(request).encode()))
        ours = None if isinstance(answer, dict) else "".join(part[1] for part in answer)
        if theirs is not None and any(word in theirs for word in PYTHONS_ALONE):
            skipped += 1
        elif theirs is None and any(word in reason for word in GENERATORS):
            skipped += 1
        elif ours is None and theirs is not None and any(w in answer["error"] for w in OURS_ALONE):
            skipped += 1
        elif ours == theirs:
            printed += ours is not None
            refused += ours is None
        else:
            mine = repr(ours) if ours is not None else "refused: " + answer["error"]
            other = repr(theirs) if theirs is not None else "refused: " + reason
            problems.append(f"template {source!r}\n  ours   {mine}\n  theirs {other}")
            if len(problems) >= 20:
                break
    driver.close()
    for problem in problems:
        print(problem)
    print(f"{printed} templates printed the same, {refused} refused by both, {skipped} not "
          f"comparable, seed {arguments.seed}: {len(problems)} differences")
    if printed < arguments.count // 4 or skipped > arguments.count // 5:
        print("too few templates were comparable")
        return 1
    return 1 if problems else 0


sys.exit(main())
