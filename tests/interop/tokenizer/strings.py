"""Seeded test strings that tokenizers get wrong: mixed scripts, digits, white space runs, broken
UTF-8, contractions, look-alikes of control tokens, emoji, combining marks."""

import random

SCRIPTS = [
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x17F), (0x180, 0x24F), (0x250, 0x2FF), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58F), (0x591, 0x5F4), (0x600, 0x6FF), (0x900, 0x97F),
    (0xE01, 0xE5B), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20BF), (0x2100, 0x218B), (0x2190, 0x23FF),
    (0x2460, 0x24FF), (0x2500, 0x27BF), (0x2E80, 0x2FD5), (0x3000, 0x303F), (0x3040, 0x30FF),
    (0x3100, 0x312F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x9FA0, 0x9FFF), (0xA000, 0xA48C),
    (0xAC00, 0xD7A3), (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFF01, 0xFFEF),
    (0x10330, 0x1034A), (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x1F300, 0x1F64F),
    (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0020, 0xE007F),
]
SPACES = [" ", " ", "  ", "\t", "\n", "\r", "\r\n", "\n\n", "\x0b", "\x0c", "\x85", "\xa0",
          "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff",
          "\x1c", "\x1f", "\u180e"]
WORDS = ("the of and to in is that for It was on are as with his they at be this have from or one "
         "had by word but not what all were we when your can said there use an each which she do "
         "how their if will up other about out many then them these so some her would make like "
         "him into time has look two more write go see number no way could people my than first "
         "water been call who oil its now find long down day did get come made may part HTTP JSON "
         "std::vector int64_t return self. __init__ lambda fooBarBaz XMLHttpRequest 北京 こんにちは "
         "мир привет γειά नमस्ते مرحبا שלום 안녕하세요 naïve Ünïcode ﬁn ǅ ß İ").split()
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'lL", "'D",
                "\u2019s", "''s", "'x", "'\u017f", "'re'll", "n't", "'sS", "'l", "'r", "'v"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "❤️", "☺", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "♀️", "#️⃣", "🫠"]
MARKS = ["e\u0301", "\u0301", "A\u030a", "n\u0303o", "\u1100\u1161\u11a8", "\u0915\u093c", "\u212b",
         "o\u0328\u0304", "\u0344", "\u0f73", "\u2126", "\ufb1d", "q\u0307\u0323"]
BROKEN = [b"\x80", b"\xff", b"\xc3", b"\xe4\xb8", b"\xf0\x9f", b"\xf0\x9f\x98", b"\xc0\xaf",
          b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe4\xb8(", b"\xf8\x88\x80\x80\x80"]
CODE = ["{", "}", "();", "==", "//", "/*", "*/", "->", "[]", "!=", "#include <", "\\n", "&&", "||",
        "http://", "a/b/c", "...", "--", "___", "<br/>", "\"", "`", "$x", "100%", "@user", "~/.x"]


class Strings:
    """An endless, seeded source. `special` are the contents of a tokenizer's added tokens."""

    def __init__(self, seed, special):
        self.random = random.Random(seed)
        self.special = special
        self.makers = [
            (10, self.word), (8, self.spaces), (4, self.digits), (5, self.script), (3, self.any_char),
            (3, lambda: self.random.choice(CONTRACTIONS)), (2, lambda: self.random.choice(EMOJI)),
            (3, lambda: self.random.choice(MARKS)), (4, lambda: self.random.choice(CODE)),
            (2, self.look_alike), (1, self.run), (2, self.ascii_soup),
        ]
        self.weights = [weight for weight, _ in self.makers]

    def word(self):
        word = self.random.choice(WORDS)
        return self.random.choice([word, " " + word, " " + word, word.capitalize(), word.upper()])

    def spaces(self):
        return "".join(self.random.choice(SPACES) for _ in range(self.random.choice([1, 1, 2, 3, 6])))

    def digits(self):
        digits = self.random.choice(["0123456789", "0123456789", "٠١٢٣", "½²Ⅷ①", "𝟘𝟙𝟚", "一二三〇"])
        return "".join(self.random.choice(digits) for _ in range(self.random.randint(1, 9)))

    def script(self):
        low, high = self.random.choice(SCRIPTS)
        return "".join(chr(self.random.randint(low, high)) for _ in range(self.random.randint(1, 6)))

    def any_char(self):
        while True:
            code = self.random.randint(0, 0x10FFFF if self.random.random() < 0.3 else 0xFFFF)
            if not 0xD800 <= code <= 0xDFFF:
                return chr(code)

    def look_alike(self):
        token = self.random.choice(self.special) if self.special else "<|x|>"
        kind = self.random.randrange(4)
        if kind == 0:
            return token
        if kind == 1:
            return token[: self.random.randint(1, len(token))]
        if kind == 2:
            return token.replace("|", "｜") if "|" in token else token.replace("｜", "|")
        position = self.random.randint(0, len(token))
        return token[:position] + self.random.choice([" ", "x", "<", "\u200b"]) + token[position:]

    def run(self):
        return self.random.choice("a .\n-=#あ0A") * self.random.randint(2, 120)

    def ascii_soup(self):
        return "".join(chr(self.random.randint(0, 127)) for _ in range(self.random.randint(1, 12)))

    def text(self):
        parts = self.random.randint(0, 12)
        makers = self.random.choices(self.makers, self.weights, k=parts)
        return "".join(maker() for _, maker in makers)

    def bytes(self):
        """A text in UTF-8, one in eight broken."""
        raw = self.text().encode()
        if self.random.randrange(8) == 0:
            position = self.random.randint(0, len(raw))
            raw = raw[:position] + self.random.choice(BROKEN) + raw[position:]
        return raw
