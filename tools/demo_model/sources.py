"""Reads the source texts from Debian packages and turns them into facts.

A fact is one thing the model shall know by heart: a kind, a subject (what a question names) and
an answer. Sources and licences are listed in README.md; all texts are in the public domain.
"""

import dataclasses
import gzip
import pathlib
import re
import subprocess

DATA = pathlib.Path(__file__).parent / "data"
DICTD = pathlib.Path("/usr/share/dictd")

# Answers are short so that they can be learned by heart: about 65 tokens at 4.2 characters each.
MAX_ANSWER_CHARS = 270
MAX_JARGON_CHARS = 220

# Entries with these words are left out: a demo is shown to strangers.
UNWANTED = re.compile(
    r"\b(nigg\w*|negro\w*|whore\w*|bitch\w*|fuck\w*|shit\w*|crap\w*|sex\w*|porn\w*|rape\w*|rapist|"
    r"orgasm\w*|masturbat\w*|penis|vagina|breasts?|damn\w*|arse|ass|asshole|bastard\w*|jew\w*|"
    r"hebrew\w*|squaw\w*|gypsy|mulatto|savages?|slaves?|women|woman|wife|wives|female\w*|virgin\w*|"
    r"mistress\w*|drugs?|suicid\w*|hitler|nazi\w*|islam\w*|mohammed\w*|muslim\w*|african\w*|"
    r"chinese|arab\w*|turd\w*|puke|piss\w*|fart\w*|urin\w*|excrement|tits?|boobs?|screw\w*|"
    r"homosex\w*|gays?|queer|retard\w*|cripple\w*|lunatics?|apaches?|white man'?s?|oriental|"
    r"sucker\w*|morons?|indians?|crackers?|murder\w*|nude|coon|redskins?)\b",
    re.I,
)


@dataclasses.dataclass(frozen=True)
class Fact:
    kind: str
    subject: str
    answer: str


def _read_gz(path):
    return gzip.open(path, "rt", encoding="utf8", errors="replace").read()


def _squeeze(text):
    """One line, plain quotes, no markup."""
    text = re.sub(r"\s+", " ", text)
    for a, b in (("‘", "'"), ("’", "'"), ("“", '"'), ("”", '"'), ("—", " -- "), ("–", "-")):
        text = text.replace(a, b)
    text = re.sub(r"\s*--\s*", " -- ", text)
    text = re.sub(r"_(.+?)_", r"\1", text).replace("_", "")
    text = re.sub(r"\{\s*([^{}]*?)\s*\}", r"\1", text)
    return re.sub(r"\s+", " ", text).strip()


def _closed(text):
    return text.count('"') % 2 == 0 and text.count("(") == text.count(")")


def first_sentences(text, limit):
    """As many whole sentences as fit, without pointers to other entries; None if none does."""
    pointer = r"(?<=[.!?\"')]) (See|See also|Compare|Oppose|Contrast|Syn|Cf)\b[^.]*\.(?= |$)"
    text = re.sub(pointer, "", text)
    ends = [m.end() for m in re.finditer(r"[.!?][\"')]*(?= [A-Z\"'(]|$)", text)]
    ends = [e for e in ends if not re.search(r"\b(e\.g|i\.e|Mr|Dr|St|esp|[A-Z])\.$", text[:e])]
    fitting = [e for e in ends if e <= limit and _closed(text[:e])]
    return text[: fitting[-1]].strip() if fitting else None


def devils_dictionary():
    text = _read_gz(DICTD / "devil.dict.dz")
    body = text[text.index("\nABASEMENT, n.") :]
    head = re.compile(r"^([A-Z][A-Z'\- ]+),? (n\.pl\.|n\.|adj\.|v\.t\.|v\.i\.|v\.|adv\.)\s+", re.M)
    marks = list(head.finditer(body))
    for mark, after in zip(marks, marks[1:] + [None]):
        block = body[mark.end() : after.start() if after else len(body)]
        meaning = first_sentences(_squeeze(block.split("\n\n")[0]), MAX_ANSWER_CHARS)
        word = mark.group(1).strip().lower()
        if meaning is None or len(meaning) < 4 or len(word) < 2:
            continue
        if UNWANTED.search(word + " " + meaning) or "(q.v" in meaning or "[" in meaning:
            continue
        yield Fact("devil", word, f"{word.capitalize()}, {mark.group(2)} {meaning}")


def _jargon_blocks():
    raw = gzip.open(DICTD / "jargon.dict.dz").read()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(word):
        value = 0
        for ch in word:
            value = value * 64 + digits.index(ch)
        return value

    spans = set()
    for line in (DICTD / "jargon.index").read_text("utf8").splitlines():
        name, offset, length = line.split("\t")[:3]
        if not name.startswith("00"):
            spans.add((number(offset), number(length)))
    for offset, length in sorted(spans):
        yield raw[offset : offset + length].decode("utf8", "replace")


def jargon_file():
    for block in _jargon_blocks():
        lines = block.strip("\n").split("\n")
        word = _squeeze(lines[0])
        if len(lines) < 3 or not re.fullmatch(r"[A-Za-z][A-Za-z\-']+( [A-Za-z\-']+){0,2}", word):
            continue
        grammar = re.search(r"\b(n|adj|adv|v|vt|vi|interj|excl|prov|abbrev)\.", lines[1])
        paragraphs = "\n".join(lines[2:]).split("\n\n")
        paragraphs = [_squeeze(p) for p in paragraphs if p.strip()]
        if not paragraphs:
            continue
        meaning = re.sub(r"^(\d\. |\[[^\]]*\] |(n|adj|adv|v|vt|vi)\. )+", "", paragraphs[0])
        meaning = first_sentences(meaning, MAX_JARGON_CHARS)
        if meaning is None or len(meaning) < 20 or meaning.startswith(("See ", "Syn", "Var", "//")):
            continue
        if UNWANTED.search(word + " " + meaning) or re.search(r"[\[\]{}<>|\\=@^~]|http", meaning):
            continue
        part = grammar.group(1) + "." if grammar else "n."
        yield Fact("jargon", word, f"{word[0].upper()}{word[1:]}, {part} {meaning}")


# Passages people like to hear; the book names are those of `bible -f`.
VERSES = [
    ("Genesis", "Ge", 1, range(1, 32)),
    ("Exodus", "Ex", 20, range(12, 17)),
    ("Psalm", "Ps", 1, range(1, 7)),
    ("Psalm", "Ps", 23, range(1, 7)),
    ("Psalm", "Ps", 121, range(1, 9)),
    ("Psalm", "Ps", 150, range(1, 7)),
    ("Proverbs", "Pr", 15, range(1, 21)),
    ("Ecclesiastes", "Ec", 1, range(2, 12)),
    ("Ecclesiastes", "Ec", 3, range(1, 12)),
    ("Matthew", "Mt", 5, range(3, 17)),
    ("Matthew", "Mt", 6, range(9, 14)),
    ("Matthew", "Mt", 7, range(1, 13)),
    ("John", "Joh", 1, range(1, 15)),
    ("John", "Joh", 3, range(16, 18)),
    ("1 Corinthians", "1Co", 13, range(1, 14)),
]


def verses():
    for book, short, chapter, numbers in VERSES:
        span = f"{short}{chapter}:{numbers[0]}-{numbers[-1]}"
        out = subprocess.run(["bible", "-f", span], stdin=subprocess.DEVNULL, text=True,
                             capture_output=True, check=True).stdout
        for line in out.splitlines():
            match = re.match(r"\S+?(\d+):(\d+) (.*)", line)
            if not match or int(match.group(2)) not in numbers:
                continue
            name = f"{book} {chapter}:{match.group(2)}"
            text = _squeeze(match.group(3))
            if len(text) <= 320:
                yield Fact("verse", name, f"{name}. {text}")


def _rows(name):
    for line in (DATA / name).read_text("utf8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split("\t")


def capitals():
    for country, city in _rows("capitals.tsv"):
        yield Fact("capital", country, f"The capital of {country} is {city}.")


def elements():
    for number, (symbol, name) in enumerate(_rows("elements.tsv"), 1):
        yield Fact("element", name, f"{name.capitalize()} has the symbol {symbol} and the atomic "
                                    f"number {number}.")


def arithmetic():
    for a in range(0, 21):
        for b in range(0, 21):
            yield Fact("add", f"{a} + {b}", f"{a} + {b} = {a + b}")
    for a in range(2, 13):
        for b in range(2, 13):
            yield Fact("times", f"{a} * {b}", f"{a} * {b} = {a * b}")


def all_facts():
    """Every fact once, with unambiguous subjects: the first source that has a word keeps it."""
    facts, seen = [], set()
    for source in (verses, capitals, elements, arithmetic, devils_dictionary, jargon_file):
        for fact in source():
            if fact.subject.lower() not in seen:
                seen.add(fact.subject.lower())
                facts.append(fact)
    return facts


def declaration_of_independence():
    """Running text for the tokenizer only."""
    return _read_gz("/usr/share/state/us-declaration.gz")


def tokenizer_text():
    """Whole books, so that the vocabulary also fits text that is not in the questions."""
    yield from _squeeze(_read_gz(DICTD / "devil.dict.dz")).split(". ")
    yield from _squeeze(_read_gz(DICTD / "jargon.dict.dz")).split(". ")
    yield from _squeeze(declaration_of_independence()).split(". ")
