#include "tokenizer/template_filters.h"

#include "base/check.h"
#include "tokenizer/template_functions.h"
#include "tokenizer/template_print.h"
#include "tokenizer/template_strings.h"
#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>

namespace wideep::tokenizer {
namespace {

using Values = std::vector<Value>;

Value text_value(std::string text) {
  return Value::text(std::move(text));
}

bool truth_or(const Value* argument, bool otherwise) {
  return argument == nullptr ? otherwise : argument->truth();
}

Result<Value> length_filter(const Value& value, const Arguments& arguments, Runtime&) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(const int64_t length, length_of(value));
  return Value::integer(length);
}

Result<Value> default_filter(const Value& value, const Arguments& arguments, Runtime&) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"default_value", "boolean"}));
  const bool replaced =
      value.is(Value::Kind::kUndefined) || (truth_or(given[1], false) && !value.truth());
  if (!replaced) return value;
  return given[0] == nullptr ? text_value("") : *given[0];
}

Result<Value> string_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(Text text, to_text(value, runtime.budget));
  return Value::text(std::move(text));
}

// A filter that is a function of the value's text.
template <Text (*kMapping)(const Text&)>
Result<Value> text_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(const Text text, to_text(value, runtime.budget));
  return Value::text(kMapping(text));
}

// Unlike str.title(), words begin after white space, hyphens and opening brackets only.
Text jinja_title(const Text& text) {
  Text out;
  bool word_begins = true;
  for (const Text& character : characters_of(text)) {
    out.append(word_begins ? upper(character) : lower(character));
    const char32_t code = character_at(character.bytes(), 0).code;
    word_begins = is_python_space(code) ||
                  (code < 0x80 && std::string_view("-({[<").find(static_cast<char>(code)) !=
                                      std::string_view::npos);
  }
  return out;
}

Text escape_html(const Text& text) {
  Text out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text.bytes()[i];
    const std::string_view escaped = c == '&'    ? "&amp;"
                                     : c == '<'  ? "&lt;"
                                     : c == '>'  ? "&gt;"
                                     : c == '"'  ? "&#34;"
                                     : c == '\'' ? "&#39;"
                                                 : std::string_view(&c, 1);
    out.append(escaped, text.origin_at(i));
  }
  return out;
}

Result<Value> trim_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"chars"}));
  WD_ASSIGN_OR_RETURN(const Text text, to_text(value, runtime.budget));
  const Text* set = given[0] == nullptr ? nullptr : given[0]->as_text();
  return Value::text(strip(text, set ? std::optional(set->bytes()) : std::nullopt, Sides::kBoth));
}

Result<Value> replace_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"old", "new", "count"}));
  if (given[0] == nullptr || given[1] == nullptr) {
    return invalid_argument("replace needs old and new");
  }
  WD_ASSIGN_OR_RETURN(const int64_t count, integer_or(given[2], -1, "count"));
  WD_ASSIGN_OR_RETURN(const Text text, to_text(value, runtime.budget));
  WD_ASSIGN_OR_RETURN(const Text from, to_text(*given[0], runtime.budget));
  WD_ASSIGN_OR_RETURN(const Text to, to_text(*given[1], runtime.budget));
  WD_ASSIGN_OR_RETURN(Text out, replace(text, from.bytes(), to, count, runtime.budget));
  return Value::text(std::move(out));
}

Result<Value> indent_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"width", "first", "blank"}));
  if (value.as_text() == nullptr) return invalid_argument("needs a str, not {}", value.kind_name());
  Text indentation;
  if (given[0] != nullptr && given[0]->as_text() != nullptr) {
    indentation = *given[0]->as_text();
  } else {
    WD_ASSIGN_OR_RETURN(const int64_t width, integer_or(given[0], 4, "width"));
    indentation = Text(std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 1000)), ' '),
                       TextOrigin::kTemplate);
  }
  Text terminated = *value.as_text();
  terminated.append("\n", TextOrigin::kTemplate);
  const std::vector<Text> lines = split_lines(terminated);
  WD_TRY(runtime.budget.spend_bytes(lines.size() * (sizeof(Text) + indentation.size() + 1)));
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n", TextOrigin::kTemplate);
    const bool indents =
        i == 0 ? truth_or(given[1], false) : truth_or(given[2], false) || !lines[i].empty();
    if (indents) out.append(indentation);
    out.append(lines[i]);
  }
  return Value::text(std::move(out));
}

Result<Value> tojson_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given,
                      arguments.bind({"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonOptions options;
  options.ensure_ascii = truth_or(given[0], false);
  options.sort_keys = truth_or(given[3], false);
  if (given[1] != nullptr && !given[1]->is(Value::Kind::kNone)) {
    if (const Text* text = given[1]->as_text()) {
      options.indent = std::string(text->bytes());
    } else {
      WD_ASSIGN_OR_RETURN(const int64_t width, integer_or(given[1], 0, "indent"));
      options.indent = std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 100)), ' ');
    }
  }
  if (given[2] != nullptr && !given[2]->is(Value::Kind::kNone)) {
    const List* pair = given[2]->as_list();
    if (pair == nullptr || pair->items.size() != 2 || pair->items[0].as_text() == nullptr ||
        pair->items[1].as_text() == nullptr) {
      return invalid_argument("tojson: separators must be two strings");
    }
    options.item_separator = std::string(pair->items[0].as_text()->bytes());
    options.key_separator = std::string(pair->items[1].as_text()->bytes());
  }
  WD_ASSIGN_OR_RETURN(Text json, to_json(value, options, runtime.budget));
  return Value::text(std::move(json));
}

// attribute='a.b' or a number, as map, join, sort and the others take it.
Result<Value> attribute_path(const Value& value, const Value& path, Budget& budget) {
  const Text* text = path.as_text();
  if (text == nullptr) return item_of(value, path, budget);
  Value current = value;
  for (const Text& name : split(*text, ".", -1, Direction::kForward)) {
    int64_t position = 0;
    const std::string_view bytes = name.bytes();
    const auto [end, code] = std::from_chars(bytes.begin(), bytes.end(), position);
    const bool is_position = code == std::errc() && end == bytes.end() && bytes.front() != '-';
    WD_ASSIGN_OR_RETURN(
        current,
        item_of(current, is_position ? Value::integer(position) : Value::text(name), budget));
  }
  return current;
}

Result<Value> join_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"d", "attribute"}));
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  Text separator;
  if (given[0] != nullptr) {
    WD_ASSIGN_OR_RETURN(separator, to_text(*given[0], runtime.budget));
  }
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (given[1] != nullptr) {
      WD_ASSIGN_OR_RETURN(item, attribute_path(item, *given[1], runtime.budget));
    }
    WD_ASSIGN_OR_RETURN(const Text text, to_text(item, runtime.budget));
    WD_TRY(runtime.budget.spend_bytes(text.size() + separator.size()));
    if (i > 0) out.append(separator);
    out.append(text);
  }
  return Value::text(std::move(out));
}

Result<Value> items_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  if (value.is(Value::Kind::kUndefined)) return Value::list({}, runtime.budget);
  if (value.as_dict() == nullptr)
    return invalid_argument("items needs a dict, not {}", value.kind_name());
  return call_method(value, "items", {}, runtime);
}

Result<Value> list_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(Values items, items_of(value, runtime.budget));
  return Value::list(std::move(items), runtime.budget);
}

Result<Value> first_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  return items.empty() ? Value::undefined("first item of an empty sequence") : items.front();
}

Result<Value> last_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  return items.empty() ? Value::undefined("last item of an empty sequence") : items.back();
}

Result<Value> reverse_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(Values items, items_of(value, runtime.budget));
  std::reverse(items.begin(), items.end());
  if (value.as_text() == nullptr) return Value::list(std::move(items), runtime.budget);
  Text out;
  for (const Value& item : items)
    out.append(*item.as_text());
  return Value::text(std::move(out));
}

// map('upper'), map(attribute='x', default='y')
Result<Value> map_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(Values items, items_of(value, runtime.budget));
  if (!arguments.positional.empty()) {
    const Text* name = arguments.positional[0].as_text();
    if (name == nullptr || !is_filter(name->bytes())) {
      return invalid_argument("map needs the name of a filter");
    }
    const Arguments rest = arguments.without(1);
    for (Value& item : items) {
      WD_ASSIGN_OR_RETURN(item, apply_filter(name->bytes(), item, rest, runtime));
    }
    return Value::list(std::move(items), runtime.budget);
  }
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"attribute", "default"}));
  if (given[0] == nullptr) return invalid_argument("map needs a filter or attribute=");
  for (Value& item : items) {
    WD_ASSIGN_OR_RETURN(item, attribute_path(item, *given[0], runtime.budget));
    if (given[1] != nullptr && item.is(Value::Kind::kUndefined)) item = *given[1];
  }
  return Value::list(std::move(items), runtime.budget);
}

// Whether an item passes select's test: the named one with its arguments, or being true.
Result<bool> passes(const Value& item, const Arguments& test, Runtime& runtime) {
  if (test.positional.empty()) return item.truth();
  const Text* name = test.positional[0].as_text();
  if (name == nullptr || !is_test(name->bytes())) return invalid_argument("no such test");
  return apply_test(name->bytes(), item, test.without(1), runtime);
}

template <bool kWanted>
Result<Value> select_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  Values kept;
  for (const Value& item : items) {
    WD_ASSIGN_OR_RETURN(const bool passed, passes(item, arguments, runtime));
    if (passed == kWanted) kept.push_back(item);
  }
  return Value::list(std::move(kept), runtime.budget);
}

template <bool kWanted>
Result<Value> selectattr_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  if (arguments.positional.empty()) return invalid_argument("the name of an attribute is missing");
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  const Arguments test = arguments.without(1);
  Values kept;
  for (const Value& item : items) {
    WD_ASSIGN_OR_RETURN(const Value attribute,
                        attribute_path(item, arguments.positional[0], runtime.budget));
    WD_ASSIGN_OR_RETURN(const bool passed, passes(attribute, test, runtime));
    if (passed == kWanted) kept.push_back(item);
  }
  return Value::list(std::move(kept), runtime.budget);
}

// Sorting by keys whose comparison can fail: a stable merge sort over (key, item).
struct Keyed {
  Value key;
  Value item;
};

// Equal keys need no order, so they may be of a kind that has none.
Result<int> order_of(const Value& a, const Value& b, Budget& budget) {
  WD_ASSIGN_OR_RETURN(const bool same, equal(a, b, budget));
  return same ? 0 : compare(a, b, budget);
}

Status merge_sort(std::vector<Keyed>& items, bool reverse, Budget& budget) {
  std::vector<Keyed> merged(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size());
      const size_t end = std::min(begin + 2 * width, items.size());
      size_t left = begin;
      size_t right = middle;
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          WD_ASSIGN_OR_RETURN(const int order, order_of(items[right].key, items[left].key, budget));
          take_right = reverse ? order > 0 : order < 0;
        }
        merged[out] = std::move(items[take_right ? right++ : left++]);
      }
    }
    items.swap(merged);
  }
  return {};
}

// The key of an item: case does not count unless asked.
Result<Value> sort_key(const Value& value, bool case_sensitive, Budget& budget) {
  const Text* text = value.as_text();
  if (case_sensitive || text == nullptr) return value;
  WD_TRY(budget.spend_bytes(text->size()));
  return Value::text(lower(*text));
}

Result<Value> sort_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"reverse", "case_sensitive", "attribute"}));
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    Value key = item;
    if (given[2] != nullptr) {
      WD_ASSIGN_OR_RETURN(key, attribute_path(item, *given[2], runtime.budget));
    }
    WD_ASSIGN_OR_RETURN(key, sort_key(key, truth_or(given[1], false), runtime.budget));
    keyed.push_back({std::move(key), item});
  }
  WD_TRY(merge_sort(keyed, truth_or(given[0], false), runtime.budget));
  Values sorted;
  for (Keyed& each : keyed)
    sorted.push_back(std::move(each.item));
  return Value::list(std::move(sorted), runtime.budget);
}

Result<Value> dictsort_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"case_sensitive", "by", "reverse"}));
  const Dict* dict = value.as_dict();
  if (dict == nullptr) return invalid_argument("dictsort needs a dict, not {}", value.kind_name());
  const Text* by = given[1] == nullptr ? nullptr : given[1]->as_text();
  const bool by_value = by != nullptr && by->bytes() == "value";
  std::vector<Keyed> keyed;
  for (const auto& [name, member] : dict->entries) {
    WD_ASSIGN_OR_RETURN(Value pair, Value::tuple({name, member}, runtime.budget));
    WD_ASSIGN_OR_RETURN(
        Value key, sort_key(by_value ? member : name, truth_or(given[0], false), runtime.budget));
    keyed.push_back({std::move(key), std::move(pair)});
  }
  WD_TRY(merge_sort(keyed, truth_or(given[2], false), runtime.budget));
  Values sorted;
  for (Keyed& each : keyed)
    sorted.push_back(std::move(each.item));
  return Value::list(std::move(sorted), runtime.budget);
}

Result<Value> unique_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"case_sensitive", "attribute"}));
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  Values seen;
  Values kept;
  for (const Value& item : items) {
    Value key = item;
    if (given[1] != nullptr) {
      WD_ASSIGN_OR_RETURN(key, attribute_path(item, *given[1], runtime.budget));
    }
    WD_ASSIGN_OR_RETURN(key, sort_key(key, truth_or(given[0], false), runtime.budget));
    WD_TRY(check_hashable(key));
    bool known = false;
    for (size_t i = 0; i < seen.size() && !known; ++i) {
      WD_ASSIGN_OR_RETURN(known, equal(seen[i], key, runtime.budget));
    }
    if (known) continue;
    seen.push_back(std::move(key));
    kept.push_back(item);
  }
  return Value::list(std::move(kept), runtime.budget);
}

template <int kSign>
Result<Value> extreme_filter(const Value& value, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"case_sensitive", "attribute"}));
  WD_ASSIGN_OR_RETURN(const Values items, items_of(value, runtime.budget));
  Value best = Value::undefined("extreme of an empty sequence");
  Value best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    Value key = items[i];
    if (given[1] != nullptr) {
      WD_ASSIGN_OR_RETURN(key, attribute_path(key, *given[1], runtime.budget));
    }
    WD_ASSIGN_OR_RETURN(key, sort_key(key, truth_or(given[0], false), runtime.budget));
    if (i > 0) {
      WD_ASSIGN_OR_RETURN(const int order, compare(key, best_key, runtime.budget));
      if (order * kSign <= 0) continue;
    }
    best = items[i];
    best_key = std::move(key);
  }
  return best;
}

Status check_defined(const Value& value) {
  const Undefined* undefined = value.as_undefined();
  if (undefined == nullptr) return {};
  return invalid_argument("'{}' is undefined", undefined->name.substr(0, 100));
}

Result<Value> int_filter(const Value& value, const Arguments& arguments, Runtime&) {
  WD_TRY(check_defined(value));
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"default"}));
  Value otherwise = given[0] == nullptr ? Value::integer(0) : *given[0];
  if (const auto integer = value.as_integer()) return Value::integer(*integer);
  std::optional<double> number = value.as_double();
  if (const Text* text = value.as_text()) {
    const Text trimmed = strip(*text, std::nullopt, Sides::kBoth);
    const std::string_view bytes = trimmed.bytes();
    int64_t integer = 0;
    const auto whole = std::from_chars(bytes.begin(), bytes.end(), integer);
    if (whole.ec == std::errc() && whole.ptr == bytes.end()) return Value::integer(integer);
    double real = 0;
    const auto read = std::from_chars(bytes.begin(), bytes.end(), real);
    if (read.ec == std::errc() && read.ptr == bytes.end()) number = real;
  }
  if (!number || !(std::abs(*number) < 9.2e18)) return otherwise;
  return Value::integer(static_cast<int64_t>(*number));
}

Result<Value> float_filter(const Value& value, const Arguments& arguments, Runtime&) {
  WD_TRY(check_defined(value));
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"default"}));
  if (const auto number = value.as_double()) return Value::number(*number);
  if (const Text* text = value.as_text()) {
    const Text trimmed = strip(*text, std::nullopt, Sides::kBoth);
    const std::string_view bytes = trimmed.bytes();
    double real = 0;
    const auto read = std::from_chars(bytes.begin(), bytes.end(), real);
    if (read.ec == std::errc() && read.ptr == bytes.end()) return Value::number(real);
  }
  return given[0] == nullptr ? Value::number(0) : *given[0];
}

Result<Value> abs_filter(const Value& value, const Arguments& arguments, Runtime&) {
  WD_TRY(arguments.bind({}));
  if (const auto integer = value.as_integer(); integer && *integer > INT64_MIN) {
    return Value::integer(std::abs(*integer));
  }
  if (const auto number = value.as_double()) return Value::number(std::abs(*number));
  return invalid_argument("abs needs a number, not {}", value.kind_name());
}

using Filter = Result<Value> (*)(const Value&, const Arguments&, Runtime&);

Result<Value> safe_filter(const Value& value, const Arguments& arguments, Runtime&) {
  WD_TRY(arguments.bind({}));
  return value;
}

constexpr std::array<std::pair<std::string_view, Filter>, 35> kFilters = {{
    {"abs", abs_filter},
    {"capitalize", text_filter<capitalize>},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort_filter},
    {"e", text_filter<escape_html>},
    {"escape", text_filter<escape_html>},
    {"first", first_filter},
    {"float", float_filter},
    {"indent", indent_filter},
    {"int", int_filter},
    {"items", items_filter},
    {"join", join_filter},
    {"last", last_filter},
    {"length", length_filter},
    {"list", list_filter},
    {"lower", text_filter<lower>},
    {"map", map_filter},
    {"max", extreme_filter<1>},
    {"min", extreme_filter<-1>},
    {"reject", select_filter<false>},
    {"rejectattr", selectattr_filter<false>},
    {"replace", replace_filter},
    {"reverse", reverse_filter},
    {"safe", safe_filter},
    {"select", select_filter<true>},
    {"selectattr", selectattr_filter<true>},
    {"sort", sort_filter},
    {"string", string_filter},
    {"title", text_filter<jinja_title>},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"unique", unique_filter},
    {"upper", text_filter<upper>},
}};

Filter find_filter(std::string_view name) {
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return nullptr;
}

}  // namespace

bool is_filter(std::string_view name) {
  return find_filter(name) != nullptr;
}

Result<Value> apply_filter(std::string_view name,
                           const Value& value,
                           const Arguments& arguments,
                           Runtime& runtime) {
  const Filter filter = find_filter(name);
  WD_CHECK(filter != nullptr);
  WD_TRY(runtime.budget.spend_steps());
  auto result = filter(value, arguments, runtime);
  if (!result) return with_context(result.error(), name);
  return result;
}

}  // namespace wideep::tokenizer
