#include "tokenizer/template_strings.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <algorithm>

namespace wideep::tokenizer {
namespace {

bool is_character_start(char c) {
  return (c & 0xC0) != 0x80;
}

// Positions of all characters, and the end.
std::vector<size_t> boundaries(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i) {
    if (is_character_start(text[i])) starts.push_back(i);
  }
  starts.push_back(text.size());
  return starts;
}

size_t previous_start(std::string_view text, size_t position) {
  do
    --position;
  while (position > 0 && !is_character_start(text[position]));
  return position;
}

template <typename Mapping>
Text map_characters(const Text& text, Mapping mapping) {
  Text out;
  std::string mapped;
  for (size_t i = 0; i < text.size();) {
    const Character character = character_at(text.bytes(), i);
    mapped.clear();
    mapping(character.code, mapped);
    out.append(mapped, text.origin_at(i));
    i += character.size;
  }
  return out;
}

void append_upper(char32_t code, std::string& out) {
  if (code == U'\u00DF') {
    out += "SS";
  } else {
    append_utf8(out, to_upper(code));
  }
}

// The words between white space; what is behind (before) the last cut stays as it is.
std::vector<Text> split_forward(const Text& text, int64_t splits_max) {
  const std::string_view bytes = text.bytes();
  std::vector<Text> parts;
  const auto space_at = [&](size_t i) { return is_python_space(character_at(bytes, i).code); };
  size_t at = 0;
  for (;;) {
    while (at < bytes.size() && space_at(at))
      at += character_at(bytes, at).size;
    if (at == bytes.size()) return parts;
    if (splits_max >= 0 && static_cast<int64_t>(parts.size()) == splits_max) break;
    const size_t begin = at;
    while (at < bytes.size() && !space_at(at))
      at += character_at(bytes, at).size;
    parts.push_back(text.substr(begin, at - begin));
  }
  parts.push_back(text.substr(at));
  return parts;
}

std::vector<Text> split_backward(const Text& text, int64_t splits_max) {
  const std::string_view bytes = text.bytes();
  std::vector<Text> parts;
  const auto space_before = [&](size_t i) {
    return is_python_space(character_at(bytes, previous_start(bytes, i)).code);
  };
  size_t at = bytes.size();
  for (;;) {
    while (at > 0 && space_before(at))
      at = previous_start(bytes, at);
    if (at == 0) break;
    if (splits_max >= 0 && static_cast<int64_t>(parts.size()) == splits_max) {
      parts.push_back(text.substr(0, at));
      break;
    }
    const size_t end = at;
    while (at > 0 && !space_before(at))
      at = previous_start(bytes, at);
    parts.push_back(text.substr(at, end - at));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

bool is_python_space(char32_t character) {
  return (category_of(character) & kSpace) != 0 || (character >= 0x1C && character <= 0x1F);
}

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), is_character_start);
}

std::vector<Text> characters_of(const Text& text) {
  std::vector<Text> out;
  const std::vector<size_t> starts = boundaries(text.bytes());
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    out.push_back(text.substr(starts[i], starts[i + 1] - starts[i]));
  }
  return out;
}

Text strip(const Text& text, std::optional<std::string_view> set, Sides sides) {
  const std::string_view bytes = text.bytes();
  const auto goes = [&](size_t begin) {
    const Character character = character_at(bytes, begin);
    if (!set) return is_python_space(character.code);
    return set->find(bytes.substr(begin, character.size)) != std::string_view::npos;
  };
  size_t begin = 0;
  size_t end = bytes.size();
  if (sides != Sides::kRight) {
    while (begin < end && goes(begin))
      begin += character_at(bytes, begin).size;
  }
  if (sides != Sides::kLeft) {
    while (end > begin && goes(previous_start(bytes, end)))
      end = previous_start(bytes, end);
  }
  return text.substr(begin, end - begin);
}

std::vector<Text> split(const Text& text,
                        std::optional<std::string_view> separator,
                        int64_t splits_max,
                        Direction direction) {
  if (!separator) {
    return direction == Direction::kForward ? split_forward(text, splits_max)
                                            : split_backward(text, splits_max);
  }
  const std::string_view bytes = text.bytes();
  std::vector<Text> parts;
  size_t begin = 0;           // of the rest, forward
  size_t end = bytes.size();  // of the rest, backward
  while (splits_max < 0 || static_cast<int64_t>(parts.size()) < splits_max) {
    if (direction == Direction::kForward) {
      const size_t at = bytes.find(*separator, begin);
      if (at == std::string_view::npos) break;
      parts.push_back(text.substr(begin, at - begin));
      begin = at + separator->size();
    } else {
      const size_t at = bytes.substr(0, end).rfind(*separator);
      if (at == std::string_view::npos) break;
      parts.push_back(text.substr(at + separator->size(), end - at - separator->size()));
      end = at;
    }
  }
  parts.push_back(text.substr(begin, end - begin));
  if (direction == Direction::kBackward) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Text> split_lines(const Text& text) {
  const std::string_view bytes = text.bytes();
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t i = 0; i < bytes.size();) {
    const Character c = character_at(bytes, i);
    const bool ends_line = (c.code >= 0x0A && c.code <= 0x0D) ||
                           (c.code >= 0x1C && c.code <= 0x1E) || c.code == 0x85 ||
                           c.code == 0x2028 || c.code == 0x2029;
    const size_t line_end = i;
    i += c.size;
    if (!ends_line) continue;
    if (c.code == '\r' && i < bytes.size() && bytes[i] == '\n') ++i;
    lines.push_back(text.substr(begin, line_end - begin));
    begin = i;
  }
  if (begin < bytes.size()) lines.push_back(text.substr(begin));
  return lines;
}

Result<Text> replace(
    const Text& text, std::string_view from, const Text& to, int64_t count, Budget& budget) {
  const std::string_view bytes = text.bytes();
  Text out;
  size_t done = 0;
  for (size_t at = 0; count != 0 && at <= bytes.size(); --count) {
    at = bytes.find(from, at);
    if (at == std::string_view::npos) break;
    WD_TRY(budget.spend_bytes(at - done + to.size()));
    out.append(text.substr(done, at - done));
    out.append(to);
    done = at + from.size();
    // An empty `from` is found before every character and at the end.
    at = from.empty() ? at + std::max<uint32_t>(1, character_at(bytes, at).size) : done;
  }
  WD_TRY(budget.spend_bytes(bytes.size() - done));
  out.append(text.substr(done));
  return out;
}

Text upper(const Text& text) {
  return map_characters(text, append_upper);
}

Text lower(const Text& text) {
  return map_characters(text,
                        [](char32_t code, std::string& out) { append_utf8(out, to_lower(code)); });
}

Text capitalize(const Text& text) {
  bool first = true;
  return map_characters(text, [&](char32_t code, std::string& out) {
    append_utf8(out, first ? to_upper(code) : to_lower(code));
    first = false;
  });
}

Text title(const Text& text) {
  bool after_letter = false;
  return map_characters(text, [&](char32_t code, std::string& out) {
    append_utf8(out, after_letter ? to_lower(code) : to_upper(code));
    after_letter = (category_of(code) & (kUpper | kLower)) != 0;
  });
}

Result<SliceRange> slice_range(const SliceBounds& bounds, int64_t length) {
  const int64_t step = bounds.step.value_or(1);
  if (step == 0) return invalid_argument("slice step cannot be 0");
  const bool forward = step > 0;
  const auto clamp = [&](std::optional<int64_t> bound, int64_t otherwise) {
    if (!bound) return otherwise;
    const int64_t position = *bound < 0 ? std::max(*bound + length, int64_t{-1}) : *bound;
    if (*bound < 0 && position < 0) return forward ? int64_t{0} : int64_t{-1};
    return std::min(position, forward ? length : length - 1);
  };
  const int64_t first = clamp(bounds.begin, forward ? 0 : length - 1);
  const int64_t last = clamp(bounds.end, forward ? length : -1);
  const int64_t distance = forward ? last - first : first - last;
  if (distance <= 0) return SliceRange{0, 0, step};
  const int64_t stride = step == INT64_MIN ? INT64_MAX : std::abs(step);
  return SliceRange{first, (distance - 1) / stride + 1, step};
}

Text slice(const Text& text, const SliceRange& range) {
  if (range.count == 0) return {};
  const std::vector<size_t> starts = boundaries(text.bytes());
  const auto position = [&](int64_t i) { return starts[static_cast<size_t>(i)]; };
  if (range.step == 1) {
    const size_t begin = position(range.first);
    return text.substr(begin, position(range.first + range.count) - begin);
  }
  Text out;
  for (int64_t i = 0; i < range.count; ++i) {
    const int64_t at = range.first + i * range.step;
    out.append(text.substr(position(at), position(at + 1) - position(at)));
  }
  return out;
}

int64_t find(std::string_view text, std::string_view part, Direction direction) {
  const size_t at = direction == Direction::kForward ? text.find(part) : text.rfind(part);
  return at == std::string_view::npos ? -1 : count_characters(text.substr(0, at));
}

}  // namespace wideep::tokenizer
