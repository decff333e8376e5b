// The tests, methods and global functions that templates may use; the filters are in
// template_filters.h. There are no others: a template has no way to the host. Each pays for what it
// makes.
#pragma once

#include "base/result.h"
#include "tokenizer/template_budget.h"
#include "tokenizer/template_value.h"

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::tokenizer {

// The arguments of a call, behind the value that a filter or test works on.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // Gives each argument its place among `names`; the others are absent (nullptr). Fails if there
  // are too many, or one has no such name. The pointers live as long as these arguments.
  Result<std::vector<const Value*>> bind(std::initializer_list<std::string_view> names) const&;
  Result<std::vector<const Value*>> bind(std::initializer_list<std::string_view> names) && = delete;
  // Without the first `skip` positional ones.
  Arguments without(size_t skip) const;
};

// What functions see of the rendering.
struct Runtime {
  Budget& budget;
  int64_t now_unix_seconds;
  // All that were made. They can hold each other in a ring, so the interpreter empties them at the
  // end.
  std::vector<std::shared_ptr<Namespace>> namespaces;
};

bool is_test(std::string_view name);
bool is_global(std::string_view name);

// `name` must be one.
Result<bool> apply_test(std::string_view name,
                        const Value& value,
                        const Arguments& arguments,
                        Runtime& runtime);
Result<Value> call_global(std::string_view name, const Arguments& arguments, Runtime& runtime);

// Whether values of this kind have that method: "abc".upper, {}.items.
bool has_method(const Value& value, std::string_view name);
Result<Value> call_method(const Value& self,
                          std::string_view name,
                          const Arguments& arguments,
                          Runtime& runtime);

// value[key], as Jinja looks it up: undefined if it is not there, an error if `value` is undefined.
Result<Value> item_of(const Value& value, const Value& key, Budget& budget);
// value.name: a method, or value[name].
Result<Value> attribute_of(const Value& value, std::string_view name, Budget& budget);

// An integer argument, or `otherwise` if it is absent.
Result<int64_t> integer_or(const Value* argument, int64_t otherwise, std::string_view what);

}  // namespace wideep::tokenizer
