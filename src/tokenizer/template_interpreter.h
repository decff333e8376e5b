// Runs a parsed template. One interpreter renders once; it sees the variables it is given and the
// functions of template_functions.h, nothing else.
#pragma once

#include "base/result.h"
#include "tokenizer/template_ast.h"
#include "tokenizer/template_budget.h"
#include "tokenizer/template_functions.h"
#include "tokenizer/template_text.h"
#include "tokenizer/template_value.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::tokenizer {

class Interpreter {
 public:
  using Variables = std::vector<std::pair<std::string, Value>>;

  // `budget` must outlive the interpreter.
  Interpreter(Budget& budget, int64_t now_unix_seconds);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // What the template prints. Errors name the line.
  Result<Text> run(const Block& block, Variables variables);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  Result<Flow> execute(const Block& block);
  Result<Flow> execute_one(const Statement& statement);
  Result<Flow> execute_for(const Statement& statement);
  Result<std::vector<Value>> loop_items(const Statement& statement);
  Status execute_set_block(const Statement& statement);
  Status print(const Text& text);
  Result<Text> printed_by(const Block& block);
  Status assign(const Expression& target, Value value);
  void assign_name(std::string_view name, Value value);
  Result<Value> look_up(std::string_view name);

  Result<Value> evaluate(const Expression& expression);
  Result<Value> evaluate_kind(const Expression& expression);
  Result<std::vector<Value>> evaluate_all(const Expression& expression);
  Result<Value> evaluate_dict(const Expression& expression);
  Result<Value> evaluate_item(const Expression& expression);
  Result<Value> evaluate_slice(const Expression& expression);
  Result<Value> evaluate_call(const Expression& expression);
  Result<Value> evaluate_filter(const Expression& expression, const Value& operand);
  Result<Value> evaluate_test(const Expression& expression);
  Result<Value> evaluate_sign(const Expression& expression);
  Result<Value> evaluate_binary(const Expression& expression);
  Result<Value> evaluate_concat(const Expression& expression);
  Result<Value> evaluate_compare(const Expression& expression);
  Result<Arguments> arguments_of(const Expression& expression);
  Result<Value> call(const Callable& callable, const Arguments& arguments);
  Result<Value> call_macro(const Statement& macro, const Arguments& arguments);

  Budget& budget_;
  Runtime runtime_;
  std::vector<Variables> scopes_;  // the template's own first, the innermost last
  size_t function_scope_ = 0;      // of the running macro: it sees scopes_[0] and from here on
  Text* out_ = nullptr;
  int depth_ = 0;
  int line_ = 0;  // being evaluated
};

}  // namespace wideep::tokenizer
