#include "tokenizer/template_value.h"

#include "tokenizer/template_strings.h"

#include <algorithm>
#include <cmath>

namespace wideep::tokenizer {
namespace {

// What a value costs beside its text.
constexpr size_t kValueBytes = 64;

int depth_of(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items)
    depth = std::max(depth, item.depth());
  return depth + 1;
}

Status check_depth(int depth, Budget& budget) {
  if (depth > budget.limits().value_depth_max) {
    return error(ErrorCode::kExhausted, "a value is nested deeper than {}",
                 budget.limits().value_depth_max);
  }
  return {};
}

template <typename Number>
int order(Number a, Number b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

Result<bool> equal_lists(const List& a, const List& b, Budget& budget) {
  if (a.is_tuple != b.is_tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    WD_ASSIGN_OR_RETURN(const bool same, equal(a.items[i], b.items[i], budget));
    if (!same) return false;
  }
  return true;
}

Result<bool> equal_dicts(const Dict& a, const Dict& b, Budget& budget) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    bool found = false;
    for (const auto& [other_key, other_value] : b.entries) {
      WD_ASSIGN_OR_RETURN(const bool same_key, equal(key, other_key, budget));
      if (!same_key) continue;
      WD_ASSIGN_OR_RETURN(found, equal(value, other_value, budget));
      break;
    }
    if (!found) return false;
  }
  return true;
}

}  // namespace

Value Value::text(Text value) {
  return Value(Variant(std::make_shared<const Text>(std::move(value))));
}

Value Value::callable(Callable value) {
  return Value(Variant(std::make_shared<const Callable>(std::move(value))));
}

Result<Value> Value::list(std::vector<Value> items, Budget& budget) {
  WD_TRY(budget.spend_bytes(kValueBytes * (items.size() + 1)));
  const int depth = depth_of(items);
  WD_TRY(check_depth(depth, budget));
  return Value(Variant(std::make_shared<const List>(List{std::move(items), false, depth})));
}

Result<Value> Value::tuple(std::vector<Value> items, Budget& budget) {
  WD_TRY(budget.spend_bytes(kValueBytes * (items.size() + 1)));
  const int depth = depth_of(items);
  WD_TRY(check_depth(depth, budget));
  return Value(Variant(std::make_shared<const List>(List{std::move(items), true, depth})));
}

Result<Value> Value::dict(std::vector<std::pair<Value, Value>> entries, Budget& budget) {
  WD_TRY(budget.spend_bytes(2 * kValueBytes * (entries.size() + 1)));
  int depth = 1;
  for (const auto& [key, value] : entries) {
    depth = std::max({depth, key.depth() + 1, value.depth() + 1});
  }
  WD_TRY(check_depth(depth, budget));
  return Value(Variant(std::make_shared<const Dict>(Dict{std::move(entries), depth})));
}

Result<Value> Value::from_json(const Json& json, TextOrigin origin, Budget& budget) {
  switch (json.kind()) {
    case Json::Kind::kNull:
      return Value();
    case Json::Kind::kBool:
      return boolean(*json.as_bool());
    case Json::Kind::kInt:
      return integer(*json.as_int());
    case Json::Kind::kDouble:
      return number(*json.as_double());
    case Json::Kind::kString:
      WD_TRY(budget.spend_bytes(json.as_string()->size()));
      return text(Text(*json.as_string(), origin));
    case Json::Kind::kArray: {
      std::vector<Value> items;
      for (const Json& item : *json.as_array()) {
        WD_ASSIGN_OR_RETURN(Value value, from_json(item, origin, budget));
        items.push_back(std::move(value));
      }
      return list(std::move(items), budget);
    }
    case Json::Kind::kObject: {
      std::vector<std::pair<Value, Value>> entries;
      for (const auto& [name, member] : *json.as_object()) {
        WD_ASSIGN_OR_RETURN(Value value, from_json(member, origin, budget));
        entries.emplace_back(text(Text(name, origin)), std::move(value));
      }
      return dict(std::move(entries), budget);
    }
  }
  return Value();
}

bool Value::is_number() const {
  return is(Kind::kBool) || is(Kind::kInteger) || is(Kind::kFloat);
}

const Text* Value::as_text() const {
  const auto* found = std::get_if<std::shared_ptr<const Text>>(&value_);
  return found ? found->get() : nullptr;
}

const List* Value::as_list() const {
  const auto* found = std::get_if<std::shared_ptr<const List>>(&value_);
  return found ? found->get() : nullptr;
}

const Dict* Value::as_dict() const {
  const auto* found = std::get_if<std::shared_ptr<const Dict>>(&value_);
  return found ? found->get() : nullptr;
}

Namespace* Value::as_namespace() const {
  const auto* found = std::get_if<std::shared_ptr<Namespace>>(&value_);
  return found ? found->get() : nullptr;
}

const Loop* Value::as_loop() const {
  const auto* found = std::get_if<std::shared_ptr<const Loop>>(&value_);
  return found ? found->get() : nullptr;
}

const Callable* Value::as_callable() const {
  const auto* found = std::get_if<std::shared_ptr<const Callable>>(&value_);
  return found ? found->get() : nullptr;
}

std::optional<int64_t> Value::as_integer() const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value ? 1 : 0;
  const int64_t* value = std::get_if<int64_t>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<double> Value::as_double() const {
  if (const double* value = std::get_if<double>(&value_)) return *value;
  const std::optional<int64_t> value = as_integer();
  return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
}

bool Value::truth() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInteger:
    case Kind::kFloat:
      return *as_double() != 0;
    case Kind::kText:
      return !as_text()->empty();
    case Kind::kList:
      return !as_list()->items.empty();
    case Kind::kDict:
      return !as_dict()->entries.empty();
    default:
      return true;
  }
}

int Value::depth() const {
  if (const List* list = as_list()) return list->depth;
  if (const Dict* dict = as_dict()) return dict->depth;
  if (const Loop* loop = as_loop()) return loop->items.depth() + 1;
  if (const Callable* callable = as_callable()) return callable->self.depth() + 1;
  return 0;
}

std::string_view Value::kind_name() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kText:
      return "str";
    case Kind::kList:
      return as_list()->is_tuple ? "tuple" : "list";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "namespace";
    case Kind::kLoop:
      return "loop";
    case Kind::kCallable:
      return "function";
  }
  return "value";
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    const Text* text = name.as_text();
    if (text != nullptr && text->bytes() == key) return &value;
  }
  return nullptr;
}

Status check_hashable(const Value& value) {
  const List* list = value.as_list();
  if (value.as_dict() != nullptr || (list != nullptr && !list->is_tuple)) {
    return invalid_argument("a {} cannot be a key", value.kind_name());
  }
  if (list == nullptr) return {};
  for (const Value& item : list->items)
    WD_TRY(check_hashable(item));
  return {};
}

Result<bool> equal(const Value& a, const Value& b, Budget& budget) {
  WD_TRY(budget.spend_steps());
  if (a.is_number() && b.is_number()) {
    const auto left = a.as_integer();
    const auto right = b.as_integer();
    return left && right ? *left == *right : *a.as_double() == *b.as_double();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kText:
      WD_TRY(budget.spend_steps(static_cast<int64_t>(a.as_text()->size() / 64)));
      return a.as_text()->bytes() == b.as_text()->bytes();
    case Value::Kind::kList:
      return equal_lists(*a.as_list(), *b.as_list(), budget);
    case Value::Kind::kDict:
      return equal_dicts(*a.as_dict(), *b.as_dict(), budget);
    case Value::Kind::kNamespace:
      return a.as_namespace() == b.as_namespace();
    case Value::Kind::kLoop:
      return a.as_loop() == b.as_loop();
    case Value::Kind::kCallable:
      return a.as_callable() == b.as_callable();
    default:
      return true;  // undefined, None
  }
}

Result<int> compare(const Value& a, const Value& b, Budget& budget) {
  WD_TRY(budget.spend_steps());
  if (a.is_number() && b.is_number()) {
    const auto left = a.as_integer();
    const auto right = b.as_integer();
    return left && right ? order(*left, *right) : order(*a.as_double(), *b.as_double());
  }
  if (a.as_text() != nullptr && b.as_text() != nullptr) {
    return order(a.as_text()->bytes().compare(b.as_text()->bytes()), 0);
  }
  const List* left = a.as_list();
  const List* right = b.as_list();
  if (left == nullptr || right == nullptr || left->is_tuple != right->is_tuple) {
    return invalid_argument("'<' is not defined between {} and {}", a.kind_name(), b.kind_name());
  }
  for (size_t i = 0; i < std::min(left->items.size(), right->items.size()); ++i) {
    WD_ASSIGN_OR_RETURN(const bool same, equal(left->items[i], right->items[i], budget));
    if (!same) return compare(left->items[i], right->items[i], budget);
  }
  return order(left->items.size(), right->items.size());
}

Result<bool> contains(const Value& haystack, const Value& needle, Budget& budget) {
  if (const Text* text = haystack.as_text()) {
    const Text* part = needle.as_text();
    if (part == nullptr) {
      return invalid_argument("'in' a str needs a str, not {}", needle.kind_name());
    }
    WD_TRY(budget.spend_steps(1 + static_cast<int64_t>(text->size() / 64)));
    return text->bytes().find(part->bytes()) != std::string_view::npos;
  }
  if (const Dict* dict = haystack.as_dict()) {
    WD_TRY(check_hashable(needle));
    for (const auto& [key, value] : dict->entries) {
      WD_ASSIGN_OR_RETURN(const bool same, equal(key, needle, budget));
      if (same) return true;
    }
    return false;
  }
  if (const List* list = haystack.as_list()) {
    for (const Value& item : list->items) {
      WD_ASSIGN_OR_RETURN(const bool same, equal(item, needle, budget));
      if (same) return true;
    }
    return false;
  }
  if (haystack.is(Value::Kind::kUndefined)) return false;
  return invalid_argument("'in' is not defined on {}", haystack.kind_name());
}

Result<std::vector<Value>> items_of(const Value& value, Budget& budget) {
  if (const List* list = value.as_list()) {
    WD_TRY(budget.spend_bytes(kValueBytes * list->items.size()));
    return list->items;
  }
  std::vector<Value> items;
  if (const Dict* dict = value.as_dict()) {
    WD_TRY(budget.spend_bytes(kValueBytes * dict->entries.size()));
    for (const auto& [key, unused] : dict->entries)
      items.push_back(key);
    return items;
  }
  if (const Text* text = value.as_text()) {
    WD_TRY(budget.spend_bytes(2 * kValueBytes * text->size()));
    for (Text& character : characters_of(*text))
      items.push_back(Value::text(std::move(character)));
    return items;
  }
  if (value.is(Value::Kind::kUndefined)) return items;
  return invalid_argument("{} cannot be iterated over", value.kind_name());
}

Result<int64_t> length_of(const Value& value) {
  if (const List* list = value.as_list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.as_dict()) return static_cast<int64_t>(dict->entries.size());
  if (const Text* text = value.as_text()) return count_characters(text->bytes());
  if (value.is(Value::Kind::kUndefined)) return 0;
  return invalid_argument("{} has no length", value.kind_name());
}

}  // namespace wideep::tokenizer
