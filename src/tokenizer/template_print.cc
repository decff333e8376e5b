#include "tokenizer/template_print.h"

#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace wideep::tokenizer {
namespace {

std::string python_string(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const Character character = character_at(text, i);
    const char32_t code = character.code;
    if (code == static_cast<unsigned char>(quote) || code == U'\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
    } else if (code != ' ' && character.is(kUnprintable)) {
      const auto number = static_cast<uint32_t>(code);
      out += code < 0x100     ? fmt::format("\\x{:02x}", number)
             : code < 0x10000 ? fmt::format("\\u{:04x}", number)
                              : fmt::format("\\U{:08x}", number);
    } else {
      out += text.substr(i, character.size);
    }
    i += character.size;
  }
  return out + quote;
}

std::string python_bool(const Value& value) {
  return value.truth() ? "True" : "False";
}

// Writes repr(value). Recursion ends at RenderLimits::value_depth_max.
class ReprWriter {
 public:
  explicit ReprWriter(Budget& budget) : budget_(budget) {}

  Status write(const Value& value) {
    switch (value.kind()) {
      case Value::Kind::kNone:
        return add("None");
      case Value::Kind::kBool:
        return add(python_bool(value));
      case Value::Kind::kInteger:
        return add(std::to_string(*value.as_integer()));
      case Value::Kind::kFloat:
        return add(python_float(*value.as_double()));
      case Value::Kind::kText:
        WD_TRY(budget_.spend_bytes(value.as_text()->size()));
        return add(python_string(value.as_text()->bytes()));
      case Value::Kind::kList:
        return write_list(*value.as_list());
      case Value::Kind::kDict:
        return write_dict(*value.as_dict());
      case Value::Kind::kUndefined:
        return add("Undefined");
      default:
        return invalid_argument("a {} cannot be printed", value.kind_name());
    }
  }

  std::string take() { return std::move(out_); }

 private:
  Status add(std::string_view text) {
    out_ += text;
    return budget_.spend_bytes(text.size());
  }

  Status write_list(const List& list) {
    out_ += list.is_tuple ? '(' : '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += ", ";
      WD_TRY(write(list.items[i]));
    }
    if (list.is_tuple && list.items.size() == 1) out_ += ',';
    return add(list.is_tuple ? ")" : "]");
  }

  Status write_dict(const Dict& dict) {
    out_ += '{';
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) out_ += ", ";
      WD_TRY(write(dict.entries[i].first));
      out_ += ": ";
      WD_TRY(write(dict.entries[i].second));
    }
    return add("}");
  }

  Budget& budget_;
  std::string out_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonOptions& options, Budget& budget)
      : options_(options),
        budget_(budget),
        item_separator_(options.item_separator.value_or(options.indent ? "," : ", ")),
        key_separator_(options.key_separator.value_or(": ")) {}

  Status write(const Value& value) {
    switch (value.kind()) {
      case Value::Kind::kNone:
        return add("null");
      case Value::Kind::kBool:
        return add(value.truth() ? "true" : "false");
      case Value::Kind::kInteger:
        return add(std::to_string(*value.as_integer()));
      case Value::Kind::kFloat:
        return add(json_float(*value.as_double()));
      case Value::Kind::kText:
        return write_string(value.as_text()->bytes());
      case Value::Kind::kList:
        return write_list(*value.as_list());
      case Value::Kind::kDict:
        return write_dict(*value.as_dict());
      default:
        return invalid_argument("{} is not JSON serializable", value.kind_name());
    }
  }

  std::string take() { return std::move(out_); }

 private:
  Status add(std::string_view text) {
    out_ += text;
    return budget_.spend_bytes(text.size());
  }

  static std::string json_float(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return python_float(value);
  }

  Status write_string(std::string_view text) {
    WD_TRY(budget_.spend_bytes(text.size()));
    std::string quoted = "\"";
    for (size_t i = 0; i < text.size();) {
      const Character character = character_at(text, i);
      append_json_character(character.code, text.substr(i, character.size), quoted);
      i += character.size;
    }
    return add(quoted + '"');
  }

  void append_json_character(char32_t code, std::string_view bytes, std::string& out) const {
    static constexpr std::string_view kShort = "\"\\\n\r\t\b\f";
    static constexpr std::string_view kLetters = "\"\\nrtbf";
    static_assert(kShort.size() == kLetters.size());
    const size_t found = bytes.size() == 1 ? kShort.find(bytes[0]) : std::string_view::npos;
    if (found != std::string_view::npos) {
      out += '\\';
      out += kLetters[found];
    } else if (code >= 0x10000 && options_.ensure_ascii) {
      const auto rest = static_cast<uint32_t>(code - 0x10000);
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    } else if (code < 0x20 || (code > 0x7E && options_.ensure_ascii)) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    } else {
      out += bytes;
    }
  }

  // A new line with `level` indentations, if the output is to be indented.
  Status new_line(size_t level) {
    if (!options_.indent) return {};
    out_ += '\n';
    WD_TRY(budget_.spend_bytes(level * options_.indent->size()));
    for (size_t i = 0; i < level; ++i)
      out_ += *options_.indent;
    return {};
  }

  Status write_list(const List& list) {
    if (list.items.empty()) return add("[]");
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) WD_TRY(add(item_separator_));
      WD_TRY(new_line(level_));
      WD_TRY(write(list.items[i]));
    }
    WD_TRY(new_line(--level_));
    return add("]");
  }

  Status write_key(const Value& key) {
    switch (key.kind()) {
      case Value::Kind::kText:
        return write(key);
      case Value::Kind::kNone:
      case Value::Kind::kBool:
      case Value::Kind::kInteger:
      case Value::Kind::kFloat:
        WD_TRY(add("\""));
        WD_TRY(write(key));
        return add("\"");
      default:
        return invalid_argument("a {} cannot be a JSON key", key.kind_name());
    }
  }

  Status write_dict(const Dict& dict) {
    if (dict.entries.empty()) return add("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    WD_TRY(budget_.spend_bytes(dict.entries.size() * sizeof(void*)));
    for (const auto& entry : dict.entries)
      entries.push_back(&entry);
    if (options_.sort_keys) WD_TRY(sort_by_key(entries));
    out_ += '{';
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) WD_TRY(add(item_separator_));
      WD_TRY(new_line(level_));
      WD_TRY(write_key(entries[i]->first));
      WD_TRY(add(key_separator_));
      WD_TRY(write(entries[i]->second));
    }
    WD_TRY(new_line(--level_));
    return add("}");
  }

  static Status sort_by_key(std::vector<const std::pair<Value, Value>*>& entries) {
    for (const auto* entry : entries) {
      if (entry->first.as_text() == nullptr) {
        return invalid_argument("sort_keys needs keys that are strings");
      }
    }
    std::sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
      return a->first.as_text()->bytes() < b->first.as_text()->bytes();
    });
    return {};
  }

  const JsonOptions& options_;
  Budget& budget_;
  std::string item_separator_;
  std::string key_separator_;
  size_t level_ = 0;
  std::string out_;
};

// Whether a string of the request is anywhere in it.
TextOrigin origin_of(const Value& value) {
  if (const Text* text = value.as_text()) return text->origin();
  return value.is_number() || value.is(Value::Kind::kNone) ? TextOrigin::kTemplate
                                                           : TextOrigin::kContent;
}

}  // namespace

std::string python_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer;
  const double magnitude = std::abs(value);
  // Python turns to exponents from 1e16 up and below 1e-4.
  const bool exponent = magnitude != 0 && (magnitude >= 1e16 || magnitude < 1e-4);
  const auto [end, code] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    exponent ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer.data(), end);
  if (!exponent && text.find('.') == std::string::npos) text += ".0";
  return text;
}

Result<Text> to_text(const Value& value, Budget& budget) {
  if (const Text* text = value.as_text()) {
    WD_TRY(budget.spend_bytes(text->size()));
    return *text;
  }
  if (value.is(Value::Kind::kUndefined)) return Text();
  ReprWriter writer(budget);
  WD_TRY(writer.write(value));
  return Text(writer.take(), origin_of(value));
}

Result<Text> to_json(const Value& value, const JsonOptions& options, Budget& budget) {
  JsonWriter writer(options, budget);
  WD_TRY(writer.write(value));
  return Text(writer.take(), origin_of(value));
}

}  // namespace wideep::tokenizer
