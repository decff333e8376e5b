// The values that a template computes with. They are Python's, since Jinja is: undefined, None,
// bool, int (64 bits), float, str, list, tuple, dict, and the interpreter's own namespace, loop and
// callable. All but namespaces are immutable, so copies share them.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/template_budget.h"
#include "tokenizer/template_text.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace wideep::tokenizer {

struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;
struct Statement;

// What is not there; knows what was asked for.
struct Undefined {
  std::string name;
};

struct None {};

class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInteger,
    kFloat,
    kText,
    kList,
    kDict,
    kNamespace,
    kLoop,
    kCallable,
  };

  Value() = default;  // None

  static Value undefined(std::string name) { return Value(Variant(Undefined{std::move(name)})); }

  static Value boolean(bool value) { return Value(Variant(value)); }

  static Value integer(int64_t value) { return Value(Variant(value)); }

  static Value number(double value) { return Value(Variant(value)); }

  static Value text(Text value);

  // Written in the template.
  static Value text(std::string value) {
    return text(Text(std::move(value), TextOrigin::kTemplate));
  }

  // Lists and dicts are paid for, and fail when they are nested deeper than the limit.
  static Result<Value> list(std::vector<Value> items, Budget& budget);
  static Result<Value> tuple(std::vector<Value> items, Budget& budget);
  static Result<Value> dict(std::vector<std::pair<Value, Value>> entries, Budget& budget);
  // With every string of that origin.
  static Result<Value> from_json(const Json& json, TextOrigin origin, Budget& budget);

  static Value name_space(std::shared_ptr<Namespace> value) {
    return Value(Variant(std::move(value)));
  }

  static Value loop(std::shared_ptr<const Loop> value) { return Value(Variant(std::move(value))); }

  static Value callable(Callable value);

  Kind kind() const { return static_cast<Kind>(value_.index()); }

  bool is(Kind wanted) const { return kind() == wanted; }

  // A bool, an integer or a float.
  bool is_number() const;

  // The value if it has that kind.
  const Undefined* as_undefined() const { return std::get_if<Undefined>(&value_); }

  const Text* as_text() const;
  const List* as_list() const;
  const Dict* as_dict() const;
  Namespace* as_namespace() const;
  const Loop* as_loop() const;
  const Callable* as_callable() const;
  // An integer, or a bool as 0 or 1.
  std::optional<int64_t> as_integer() const;
  // Any number.
  std::optional<double> as_double() const;

  bool truth() const;
  // 1 + the depth of the deepest item.
  int depth() const;
  // "list", "str", ... as Python names it.
  std::string_view kind_name() const;

 private:
  // Shared: the values of a list are the same in all its copies and slices.
  using Variant = std::variant<Undefined,
                               None,
                               bool,
                               int64_t,
                               double,
                               std::shared_ptr<const Text>,
                               std::shared_ptr<const List>,
                               std::shared_ptr<const Dict>,
                               std::shared_ptr<Namespace>,
                               std::shared_ptr<const Loop>,
                               std::shared_ptr<const Callable>>;

  explicit Value(Variant value) : value_(std::move(value)) {}

  Variant value_ = None{};
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;

  // The value of a key that is a string; linear.
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> members;
};

// What `loop` is in one iteration.
struct Loop {
  Value items;  // a list
  size_t index = 0;
};

struct Callable {
  enum class Kind { kGlobal, kMethod, kLoopCycle, kMacro };
  Kind kind;
  std::string name;
  Value self{};                      // of a method or a loop
  const Statement* macro = nullptr;  // owned by the template
};

// kInvalidArgument if the value cannot be a key: a list or dict, or a tuple that has one.
Status check_hashable(const Value& value);
// Python's ==. Fails only when the budget is spent.
Result<bool> equal(const Value& a, const Value& b, Budget& budget);
// Python's <=> for two numbers or two strings or two lists: negative, 0 or positive.
Result<int> compare(const Value& a, const Value& b, Budget& budget);
// Python's `needle in haystack`.
Result<bool> contains(const Value& haystack, const Value& needle, Budget& budget);
// What a for loop goes through: items, keys, characters; nothing for an undefined value.
Result<std::vector<Value>> items_of(const Value& value, Budget& budget);
// len(value)
Result<int64_t> length_of(const Value& value);

}  // namespace wideep::tokenizer
