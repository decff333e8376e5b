#include "tokenizer/template_functions.h"

#include "base/check.h"
#include "tokenizer/template_arithmetic.h"
#include "tokenizer/template_print.h"
#include "tokenizer/template_strings.h"
#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <string>
#include <vector>

namespace wideep::tokenizer {
namespace {

using Kind = Value::Kind;

template <typename Function, size_t kSize>
Function find_in(const std::array<std::pair<std::string_view, Function>, kSize>& table,
                 std::string_view name) {
  for (const auto& [known, function] : table) {
    if (known == name) return function;
  }
  return nullptr;
}

// ---- tests

using Test = Result<bool> (*)(const Value&, const Value* other, Budget&);

template <Value::Kind... kKinds>
Result<bool> kind_test(const Value& value, const Value*, Budget&) {
  return (value.is(kKinds) || ...);
}

Result<bool> defined_test(const Value& value, const Value*, Budget&) {
  return !value.is(Kind::kUndefined);
}

template <bool kWanted>
Result<bool> bool_test(const Value& value, const Value*, Budget&) {
  return value.is(Kind::kBool) && value.truth() == kWanted;
}

template <bool kWanted>
Result<bool> equal_test(const Value& value, const Value* other, Budget& budget) {
  WD_ASSIGN_OR_RETURN(const bool same, equal(value, *other, budget));
  return same == kWanted;
}

template <bool kLess, bool kEqual>
Result<bool> order_test(const Value& value, const Value* other, Budget& budget) {
  WD_ASSIGN_OR_RETURN(const int order, compare(value, *other, budget));
  return order == 0 ? kEqual : (order < 0) == kLess;
}

Result<bool> in_test(const Value& value, const Value* other, Budget& budget) {
  return contains(*other, value, budget);
}

// value % divisor == remainder
Result<bool> has_remainder(const Value& value,
                           const Value& divisor,
                           int64_t remainder,
                           Budget& budget) {
  WD_ASSIGN_OR_RETURN(const Value rest, apply_operator("%", value, divisor, budget));
  return equal(rest, Value::integer(remainder), budget);
}

Result<bool> divisible_test(const Value& value, const Value* other, Budget& budget) {
  return has_remainder(value, *other, 0, budget);
}

template <int64_t kRemainder>
Result<bool> parity_test(const Value& value, const Value*, Budget& budget) {
  return has_remainder(value, Value::integer(2), kRemainder, budget);
}

template <Text (*kMapping)(const Text&)>
Result<bool> case_test(const Value& value, const Value*, Budget& budget) {
  WD_ASSIGN_OR_RETURN(const Text text, to_text(value, budget));
  const bool has_case = upper(text).bytes() != lower(text).bytes();
  return has_case && kMapping(text).bytes() == text.bytes();
}

constexpr std::array<std::pair<std::string_view, Test>, 18> kUnaryTests = {{
    {"boolean", kind_test<Kind::kBool>},
    {"callable", kind_test<Kind::kCallable>},
    {"defined", defined_test},
    {"even", parity_test<0>},
    {"false", bool_test<false>},
    {"float", kind_test<Kind::kFloat>},
    {"integer", kind_test<Kind::kInteger>},
    {"iterable", kind_test<Kind::kText, Kind::kList, Kind::kDict, Kind::kUndefined>},
    {"lower", case_test<lower>},
    {"mapping", kind_test<Kind::kDict>},
    {"none", kind_test<Kind::kNone>},
    {"number", kind_test<Kind::kBool, Kind::kInteger, Kind::kFloat>},
    {"odd", parity_test<1>},
    {"sequence", kind_test<Kind::kText, Kind::kList, Kind::kDict, Kind::kUndefined>},
    {"string", kind_test<Kind::kText>},
    {"true", bool_test<true>},
    {"undefined", kind_test<Kind::kUndefined>},
    {"upper", case_test<upper>},
}};

constexpr std::array<std::pair<std::string_view, Test>, 17> kBinaryTests = {{
    {"!=", equal_test<false>},
    {"divisibleby", divisible_test},
    {"eq", equal_test<true>},
    {"equalto", equal_test<true>},
    {"ge", order_test<false, true>},
    {"greaterthan", order_test<false, false>},
    {"gt", order_test<false, false>},
    {"in", in_test},
    {"le", order_test<true, true>},
    {"lessthan", order_test<true, false>},
    {"lt", order_test<true, false>},
    {"ne", equal_test<false>},
    {"==", equal_test<true>},
    {">", order_test<false, false>},
    {">=", order_test<false, true>},
    {"<", order_test<true, false>},
    {"<=", order_test<true, true>},
}};

// ---- methods

using Method = Result<Value> (*)(const Value& self, const Arguments&, Runtime&);

Result<std::vector<Value>> text_values(std::vector<Text> texts, Budget& budget) {
  WD_TRY(budget.spend_bytes(2 * sizeof(Text) * texts.size()));
  std::vector<Value> values;
  for (Text& text : texts)
    values.push_back(Value::text(std::move(text)));
  return values;
}

Result<std::optional<std::string_view>> text_or_none(const Value* argument, std::string_view what) {
  if (argument == nullptr || argument->is(Kind::kNone)) return std::nullopt;
  if (argument->as_text() == nullptr) {
    return invalid_argument("{} must be a str, not {}", what, argument->kind_name());
  }
  return argument->as_text()->bytes();
}

Result<std::string_view> text_argument(const Value* argument, std::string_view what) {
  WD_ASSIGN_OR_RETURN(const auto text, text_or_none(argument, what));
  if (!text) return invalid_argument("{} is missing", what);
  return *text;
}

template <Direction kDirection>
Result<Value> split_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"sep", "maxsplit"}));
  WD_ASSIGN_OR_RETURN(const auto separator, text_or_none(given[0], "sep"));
  WD_ASSIGN_OR_RETURN(const int64_t splits_max, integer_or(given[1], -1, "maxsplit"));
  if (separator && separator->empty()) return invalid_argument("sep is empty");
  // Paid for before it is made: each part has at least one byte of the text.
  WD_TRY(runtime.budget.spend_bytes(self.as_text()->size()));
  WD_ASSIGN_OR_RETURN(
      std::vector<Value> parts,
      text_values(split(*self.as_text(), separator, splits_max, kDirection), runtime.budget));
  return Value::list(std::move(parts), runtime.budget);
}

Result<Value> splitlines_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(std::vector<Value> lines,
                      text_values(split_lines(*self.as_text()), runtime.budget));
  return Value::list(std::move(lines), runtime.budget);
}

template <Sides kSides>
Result<Value> strip_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"chars"}));
  WD_ASSIGN_OR_RETURN(const auto set, text_or_none(given[0], "chars"));
  WD_TRY(runtime.budget.spend_bytes(self.as_text()->size()));
  return Value::text(strip(*self.as_text(), set, kSides));
}

template <Text (*kMapping)(const Text&)>
Result<Value> map_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_TRY(runtime.budget.spend_bytes(self.as_text()->size()));
  return Value::text(kMapping(*self.as_text()));
}

// startswith and endswith, with a string or a tuple of them.
template <bool (*kMatches)(std::string_view, std::string_view)>
Result<Value> affix_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"prefix"}));
  if (given[0] != nullptr && given[0]->as_list() != nullptr) {
    for (const Value& each : given[0]->as_list()->items) {
      WD_TRY(runtime.budget.spend_steps());
      WD_ASSIGN_OR_RETURN(const std::string_view affix, text_argument(&each, "prefix"));
      if (kMatches(self.as_text()->bytes(), affix)) return Value::boolean(true);
    }
    return Value::boolean(false);
  }
  WD_ASSIGN_OR_RETURN(const std::string_view affix, text_argument(given[0], "prefix"));
  return Value::boolean(kMatches(self.as_text()->bytes(), affix));
}

bool starts_with(std::string_view text, std::string_view affix) {
  return text.starts_with(affix);
}

bool ends_with(std::string_view text, std::string_view affix) {
  return text.ends_with(affix);
}

template <Sides kSide>
Result<Value> remove_affix_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"affix"}));
  WD_ASSIGN_OR_RETURN(const std::string_view affix, text_argument(given[0], "affix"));
  const Text& text = *self.as_text();
  WD_TRY(runtime.budget.spend_bytes(text.size()));
  if (kSide == Sides::kLeft && text.bytes().starts_with(affix)) {
    return Value::text(text.substr(affix.size()));
  }
  if (kSide == Sides::kRight && text.bytes().ends_with(affix)) {
    return Value::text(text.substr(0, text.size() - affix.size()));
  }
  return self;
}

Result<Value> replace_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"old", "new", "count"}));
  WD_ASSIGN_OR_RETURN(const std::string_view from, text_argument(given[0], "old"));
  WD_TRY(text_argument(given[1], "new"));
  WD_ASSIGN_OR_RETURN(const int64_t count, integer_or(given[2], -1, "count"));
  WD_ASSIGN_OR_RETURN(Text out,
                      replace(*self.as_text(), from, *given[1]->as_text(), count, runtime.budget));
  return Value::text(std::move(out));
}

template <Direction kDirection>
Result<Value> find_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"sub"}));
  WD_ASSIGN_OR_RETURN(const std::string_view part, text_argument(given[0], "sub"));
  WD_TRY(runtime.budget.spend_bytes(self.as_text()->size()));
  return Value::integer(find(self.as_text()->bytes(), part, kDirection));
}

Result<Value> count_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"sub"}));
  WD_ASSIGN_OR_RETURN(const std::string_view part, text_argument(given[0], "sub"));
  const std::string_view text = self.as_text()->bytes();
  WD_TRY(runtime.budget.spend_bytes(text.size()));
  if (part.empty()) return Value::integer(count_characters(text) + 1);
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return Value::integer(count);
}

Result<Value> join_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"iterable"}));
  if (given[0] == nullptr) return invalid_argument("the strings to join are missing");
  WD_ASSIGN_OR_RETURN(const std::vector<Value> items, items_of(*given[0], runtime.budget));
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    const Text* text = items[i].as_text();
    if (text == nullptr) return invalid_argument("item {} is {}, not str", i, items[i].kind_name());
    WD_TRY(runtime.budget.spend_bytes(self.as_text()->size() + text->size()));
    if (i > 0) out.append(*self.as_text());
    out.append(*text);
  }
  return Value::text(std::move(out));
}

template <CategorySet kSet>
Result<Value> all_of_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  const std::string_view text = self.as_text()->bytes();
  WD_TRY(runtime.budget.spend_bytes(text.size()));
  for (size_t i = 0; i < text.size();) {
    const Character character = character_at(text, i);
    if (!character.is(kSet)) return Value::boolean(false);
    i += character.size;
  }
  return Value::boolean(!text.empty());
}

constexpr std::array<std::pair<std::string_view, Method>, 22> kTextMethods = {{
    {"capitalize", map_method<capitalize>},
    {"count", count_method},
    {"endswith", affix_method<ends_with>},
    {"find", find_method<Direction::kForward>},
    {"isalpha", all_of_method<kLetter>},
    {"isdigit", all_of_method<category_set(Category::kNd)>},
    {"isspace", all_of_method<kSpace>},
    {"join", join_method},
    {"lower", map_method<lower>},
    {"lstrip", strip_method<Sides::kLeft>},
    {"removeprefix", remove_affix_method<Sides::kLeft>},
    {"removesuffix", remove_affix_method<Sides::kRight>},
    {"replace", replace_method},
    {"rfind", find_method<Direction::kBackward>},
    {"rsplit", split_method<Direction::kBackward>},
    {"rstrip", strip_method<Sides::kRight>},
    {"split", split_method<Direction::kForward>},
    {"splitlines", splitlines_method},
    {"startswith", affix_method<starts_with>},
    {"strip", strip_method<Sides::kBoth>},
    {"title", map_method<title>},
    {"upper", map_method<upper>},
}};

Result<Value> items_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.as_dict()->entries) {
    WD_ASSIGN_OR_RETURN(Value pair, Value::tuple({key, value}, runtime.budget));
    pairs.push_back(std::move(pair));
  }
  return Value::list(std::move(pairs), runtime.budget);
}

Result<Value> keys_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  WD_ASSIGN_OR_RETURN(std::vector<Value> keys, items_of(self, runtime.budget));
  return Value::list(std::move(keys), runtime.budget);
}

Result<Value> values_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_TRY(arguments.bind({}));
  std::vector<Value> values;
  for (const auto& [key, value] : self.as_dict()->entries)
    values.push_back(value);
  return Value::list(std::move(values), runtime.budget);
}

Result<Value> get_method(const Value& self, const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"key", "default"}));
  if (given[0] == nullptr) return invalid_argument("the key is missing");
  WD_TRY(check_hashable(*given[0]));
  for (const auto& [key, value] : self.as_dict()->entries) {
    WD_ASSIGN_OR_RETURN(const bool same, equal(key, *given[0], runtime.budget));
    if (same) return value;
  }
  return given[1] == nullptr ? Value() : *given[1];
}

constexpr std::array<std::pair<std::string_view, Method>, 4> kDictMethods = {{
    {"get", get_method},
    {"items", items_method},
    {"keys", keys_method},
    {"values", values_method},
}};

Method find_method_of(const Value& value, std::string_view name) {
  if (value.as_text() != nullptr) return find_in(kTextMethods, name);
  if (value.as_dict() != nullptr) return find_in(kDictMethods, name);
  return nullptr;
}

Value loop_attribute(const Loop& loop, std::string_view name) {
  const std::vector<Value>& items = loop.items.as_list()->items;
  const auto index = static_cast<int64_t>(loop.index);
  const auto size = static_cast<int64_t>(items.size());
  if (name == "index") return Value::integer(index + 1);
  if (name == "index0") return Value::integer(index);
  if (name == "revindex") return Value::integer(size - index);
  if (name == "revindex0") return Value::integer(size - index - 1);
  if (name == "length") return Value::integer(size);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(index + 1 == size);
  if (name == "previtem" && index > 0) return items[loop.index - 1];
  if (name == "nextitem" && index + 1 < size) return items[loop.index + 1];
  return Value::undefined("loop." + std::string(name));
}

// ---- globals

using Global = Result<Value> (*)(const Arguments&, Runtime&);

Result<Value> raise_exception(const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"message"}));
  Text message("the template raised an exception", TextOrigin::kTemplate);
  if (given[0] != nullptr) {
    WD_ASSIGN_OR_RETURN(message, to_text(*given[0], runtime.budget));
  }
  constexpr size_t kMessageBytesMax = 500;
  return invalid_argument("{}", message.bytes().substr(0, kMessageBytesMax));
}

Result<Value> strftime_now(const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(const auto given, arguments.bind({"format"}));
  WD_ASSIGN_OR_RETURN(const std::string_view format, text_argument(given[0], "format"));
  constexpr size_t kFormatBytesMax = 128;
  if (format.size() > kFormatBytesMax) {
    return invalid_argument("strftime_now: format has {} bytes, at most {} allowed", format.size(),
                            kFormatBytesMax);
  }
  const std::time_t now = runtime.now_unix_seconds;
  std::tm parts{};
  if (gmtime_r(&now, &parts) == nullptr) return invalid_argument("strftime_now: no such time");
  std::array<char, 8192> buffer;
  const std::string terminated(format);
  const size_t size = std::strftime(buffer.data(), buffer.size(), terminated.c_str(), &parts);
  return Value::text(Text(std::string(buffer.data(), size), given[0]->as_text()->origin()));
}

Result<Value> make_namespace(const Arguments& arguments, Runtime& runtime) {
  auto result = std::make_shared<Namespace>();
  for (const Value& each : arguments.positional) {
    const Dict* dict = each.as_dict();
    if (dict == nullptr) return invalid_argument("namespace takes a dict or keyword arguments");
    for (const auto& [key, value] : dict->entries) {
      if (key.as_text() != nullptr) {
        result->members.emplace_back(key.as_text()->bytes(), value);
      }
    }
  }
  for (const auto& [name, value] : arguments.named)
    result->members.emplace_back(name, value);
  WD_TRY(runtime.budget.spend_bytes(128 * (result->members.size() + 1)));
  runtime.namespaces.push_back(result);
  return Value::name_space(std::move(result));
}

Result<Value> make_dict(const Arguments& arguments, Runtime& runtime) {
  if (!arguments.positional.empty()) return invalid_argument("dict takes keyword arguments only");
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [name, value] : arguments.named)
    entries.emplace_back(Value::text(name), value);
  return Value::dict(std::move(entries), runtime.budget);
}

Result<Value> range(const Arguments& arguments, Runtime& runtime) {
  WD_ASSIGN_OR_RETURN(auto given, arguments.bind({"start", "stop", "step"}));
  if (given[1] == nullptr) std::swap(given[0], given[1]);
  if (given[1] == nullptr) return invalid_argument("range needs a number");
  WD_ASSIGN_OR_RETURN(int64_t at, integer_or(given[0], 0, "start"));
  WD_ASSIGN_OR_RETURN(const int64_t stop, integer_or(given[1], 0, "stop"));
  WD_ASSIGN_OR_RETURN(const int64_t step, integer_or(given[2], 1, "step"));
  if (step == 0) return invalid_argument("range: step cannot be 0");
  std::vector<Value> items;
  while (step > 0 ? at < stop : at > stop) {
    if (static_cast<int64_t>(items.size()) >= runtime.budget.limits().range_max) {
      return error(ErrorCode::kExhausted, "range of more than {} items",
                   runtime.budget.limits().range_max);
    }
    items.push_back(Value::integer(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return Value::list(std::move(items), runtime.budget);
}

constexpr std::array<std::pair<std::string_view, Global>, 5> kGlobals = {{
    {"dict", make_dict},
    {"namespace", make_namespace},
    {"raise_exception", raise_exception},
    {"range", range},
    {"strftime_now", strftime_now},
}};

}  // namespace

Result<std::vector<const Value*>> Arguments::bind(
    std::initializer_list<std::string_view> names) const& {
  std::vector<const Value*> bound(names.size(), nullptr);
  if (positional.size() > names.size()) {
    return invalid_argument("takes at most {} arguments, {} given", names.size(),
                            positional.size());
  }
  for (size_t i = 0; i < positional.size(); ++i)
    bound[i] = &positional[i];
  for (const auto& [name, value] : named) {
    const auto place = std::find(names.begin(), names.end(), name);
    if (place == names.end()) return invalid_argument("has no argument '{}'", name.substr(0, 40));
    const Value*& slot = bound[static_cast<size_t>(place - names.begin())];
    if (slot != nullptr) return invalid_argument("argument '{}' is given twice", name);
    slot = &value;
  }
  return bound;
}

Arguments Arguments::without(size_t skip) const {
  Arguments rest;
  rest.positional.assign(positional.begin() + static_cast<std::ptrdiff_t>(skip), positional.end());
  rest.named = named;
  return rest;
}

Result<int64_t> integer_or(const Value* argument, int64_t otherwise, std::string_view what) {
  if (argument == nullptr) return otherwise;
  const auto number = argument->as_integer();
  if (!number) return invalid_argument("{} must be an int, not {}", what, argument->kind_name());
  return *number;
}

bool is_test(std::string_view name) {
  return find_in(kUnaryTests, name) != nullptr || find_in(kBinaryTests, name) != nullptr;
}

Result<bool> apply_test(std::string_view name,
                        const Value& value,
                        const Arguments& arguments,
                        Runtime& runtime) {
  WD_TRY(runtime.budget.spend_steps());
  if (const Test test = find_in(kUnaryTests, name)) {
    auto bound = arguments.bind({});
    if (!bound) return with_context(bound.error(), name);
    return test(value, nullptr, runtime.budget);
  }
  const Test test = find_in(kBinaryTests, name);
  WD_CHECK(test != nullptr);
  auto bound = arguments.bind({"other"});
  if (!bound) return with_context(bound.error(), name);
  if ((*bound)[0] == nullptr) return invalid_argument("test '{}' needs an argument", name);
  return test(value, (*bound)[0], runtime.budget);
}

bool is_global(std::string_view name) {
  return find_in(kGlobals, name) != nullptr;
}

Result<Value> call_global(std::string_view name, const Arguments& arguments, Runtime& runtime) {
  const Global global = find_in(kGlobals, name);
  WD_CHECK(global != nullptr);
  return global(arguments, runtime);
}

bool has_method(const Value& value, std::string_view name) {
  return find_method_of(value, name) != nullptr;
}

Result<Value> call_method(const Value& self,
                          std::string_view name,
                          const Arguments& arguments,
                          Runtime& runtime) {
  const Method method = find_method_of(self, name);
  WD_CHECK(method != nullptr);
  auto result = method(self, arguments, runtime);
  if (!result) return with_context(result.error(), name);
  return result;
}

Result<Value> item_of(const Value& value, const Value& key, Budget& budget) {
  if (const Undefined* undefined = value.as_undefined()) {
    return invalid_argument("'{}' is undefined", undefined->name.substr(0, 100));
  }
  const std::optional<int64_t> number = key.as_integer();
  const Text* name = key.as_text();
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [entry_key, entry] : dict->entries) {
      WD_ASSIGN_OR_RETURN(const bool same, equal(entry_key, key, budget));
      if (same) return entry;
    }
  } else if (const List* list = value.as_list(); list != nullptr && number) {
    const auto size = static_cast<int64_t>(list->items.size());
    const int64_t position = *number < 0 ? *number + size : *number;
    if (position >= 0 && position < size) return list->items[static_cast<size_t>(position)];
  } else if (const Text* text = value.as_text(); text != nullptr && number) {
    WD_TRY(budget.spend_bytes(text->size()));
    const int64_t size = count_characters(text->bytes());
    const int64_t position = *number < 0 ? *number + size : *number;
    if (position >= 0 && position < size) return Value::text(slice(*text, {position, 1, 1}));
  } else if (const Namespace* names = value.as_namespace(); names != nullptr && name != nullptr) {
    for (const auto& [member, entry] : names->members) {
      if (member == name->bytes()) return entry;
    }
  } else if (const Loop* loop = value.as_loop(); loop != nullptr && name != nullptr) {
    return loop_attribute(*loop, name->bytes());
  }
  if (name == nullptr) return Value::undefined("item " + std::string(value.kind_name()) + "[...]");
  if (!has_method(value, name->bytes())) return Value::undefined(std::string(name->bytes()));
  return Value::callable({Callable::Kind::kMethod, std::string(name->bytes()), value});
}

Result<Value> attribute_of(const Value& value, std::string_view name, Budget& budget) {
  if (has_method(value, name)) {
    return Value::callable({Callable::Kind::kMethod, std::string(name), value});
  }
  if (value.as_loop() != nullptr && name == "cycle") {
    return Value::callable({Callable::Kind::kLoopCycle, std::string(name), value});
  }
  return item_of(value, Value::text(std::string(name)), budget);
}

}  // namespace wideep::tokenizer
