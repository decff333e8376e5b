#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.cc: general categories as ranges.

Usage: pip install unicodedata2==16.0.0; tools/unicode_tables.py > src/tokenizer/unicode_tables.cc
Unicode 16 is what the tokenizers library of Hugging Face has, which decides how prompts are cut.
(Debian 12's PCRE2, our fallback for rare patterns, has Unicode 14.)
"""

import sys

import unicodedata2 as unicodedata

# In the order of enum class Category (unicode.h).
CATEGORIES = (
    "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co"
).split()


def ranges():
    """Yields (first code point, category index) wherever the category changes."""
    previous = None
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category != previous:
            yield code, CATEGORIES.index(category)
            previous = category


def main():
    packed = [f"0x{code << 5 | category:X}" for code, category in ranges()]
    print(f"// Made by tools/unicode_tables.py from Unicode {unicodedata.unidata_version}. Do not edit.")
    print('#include "tokenizer/unicode_tables.h"\n')
    print("namespace wideep::tokenizer {\n")
    print("// clang-format off")
    print(f"const std::array<uint32_t, {len(packed)}> kCategoryRangeStarts = {{")
    line = "   "
    for item in packed:
        if len(line) + len(item) + 2 > 99:
            print(line)
            line = "   "
        line += f" {item},"
    print(line)
    print("};")
    print("// clang-format on")
    print("\n}  // namespace wideep::tokenizer")


main()
