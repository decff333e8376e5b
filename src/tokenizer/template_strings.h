// Python's string operations on marked text. Positions count characters, as in Python.
#pragma once

#include "base/result.h"
#include "tokenizer/template_budget.h"
#include "tokenizer/template_text.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

// What str.isspace() is true for: Unicode White_Space and U+001C to U+001F.
bool is_python_space(char32_t character);

int64_t count_characters(std::string_view text);
std::vector<Text> characters_of(const Text& text);

enum class Sides { kLeft, kRight, kBoth };
// Without characters of `set`, or without white space, at its ends.
Text strip(const Text& text, std::optional<std::string_view> set, Sides sides);

enum class Direction { kForward, kBackward };
// str.split and rsplit: without a separator at runs of white space. At most `splits_max` cuts if
// that is not negative. `separator` must not be empty.
std::vector<Text> split(const Text& text,
                        std::optional<std::string_view> separator,
                        int64_t splits_max,
                        Direction direction);
std::vector<Text> split_lines(const Text& text);

// The first `count` (all, if negative) occurrences of `from` become `to`. Pays for the result.
Result<Text> replace(
    const Text& text, std::string_view from, const Text& to, int64_t count, Budget& budget);

// Simple case mapping, with the sharp s as in Python.
Text upper(const Text& text);
Text lower(const Text& text);
// First character in upper case, the rest in lower case.
Text capitalize(const Text& text);
// str.title(): each run of letters capitalized.
Text title(const Text& text);

// The range of a Python slice of a sequence of `length` items.
struct SliceRange {
  int64_t first = 0;
  int64_t count = 0;
  int64_t step = 1;
};

struct SliceBounds {
  std::optional<int64_t> begin;
  std::optional<int64_t> end;
  std::optional<int64_t> step;
};

// kInvalidArgument for step 0.
Result<SliceRange> slice_range(const SliceBounds& bounds, int64_t length);
Text slice(const Text& text, const SliceRange& range);

// Character position of the first (or last) `part`, -1 if there is none.
int64_t find(std::string_view text, std::string_view part, Direction direction);

}  // namespace wideep::tokenizer
