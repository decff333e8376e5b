#include "tokenizer/template_interpreter.h"

#include "tokenizer/template_arithmetic.h"
#include "tokenizer/template_filters.h"
#include "tokenizer/template_print.h"
#include "tokenizer/template_strings.h"

#include <algorithm>
#include <utility>

namespace wideep::tokenizer {
namespace {

using Node = Expression::Kind;

std::unexpected<Error> undefined_error(const Value& value) {
  return invalid_argument("'{}' is undefined", value.as_undefined()->name.substr(0, 100));
}

// Counts a level for as long as it lives.
class Level {
 public:
  explicit Level(int& depth) : depth_(depth) { ++depth_; }

  ~Level() { --depth_; }

  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  int& depth_;
};

}  // namespace

Interpreter::Interpreter(Budget& budget, int64_t now_unix_seconds)
    : budget_(budget), runtime_{budget, now_unix_seconds, {}} {}

Interpreter::~Interpreter() {
  scopes_.clear();
  for (const auto& each : runtime_.namespaces)
    each->members.clear();
}

Result<Text> Interpreter::run(const Block& block, Variables variables) {
  scopes_.clear();
  scopes_.push_back(std::move(variables));
  auto text = printed_by(block);
  if (!text) return with_context(text.error(), fmt::format("line {}", line_));
  return text;
}

// ---- statements

Result<Interpreter::Flow> Interpreter::execute(const Block& block) {
  const Level level(depth_);
  if (depth_ > budget_.limits().depth_max) {
    return error(ErrorCode::kExhausted, "nested deeper than {}", budget_.limits().depth_max);
  }
  for (const Statement& statement : block) {
    line_ = statement.line;
    WD_TRY(budget_.spend_steps());
    WD_ASSIGN_OR_RETURN(const Flow flow, execute_one(statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute_one(const Statement& statement) {
  switch (statement.kind) {
    case Statement::Kind::kText:
      WD_TRY(print(Text(statement.name, TextOrigin::kTemplate)));
      return Flow::kNext;
    case Statement::Kind::kOutput: {
      WD_ASSIGN_OR_RETURN(const Value value, evaluate(*statement.expression));
      WD_ASSIGN_OR_RETURN(const Text text, to_text(value, budget_));
      WD_TRY(print(text));
      return Flow::kNext;
    }
    case Statement::Kind::kIf: {
      WD_ASSIGN_OR_RETURN(const Value condition, evaluate(*statement.expression));
      return execute(condition.truth() ? statement.body : statement.otherwise);
    }
    case Statement::Kind::kFor:
      return execute_for(statement);
    case Statement::Kind::kSet: {
      WD_ASSIGN_OR_RETURN(Value value, evaluate(*statement.expression));
      WD_TRY(assign(*statement.target, std::move(value)));
      return Flow::kNext;
    }
    case Statement::Kind::kSetBlock:
      WD_TRY(execute_set_block(statement));
      return Flow::kNext;
    case Statement::Kind::kMacro:
      assign_name(statement.name, Value::callable({.kind = Callable::Kind::kMacro,
                                                   .name = statement.name,
                                                   .macro = &statement}));
      return Flow::kNext;
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
    case Statement::Kind::kGroup:
      return execute(statement.body);
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute_for(const Statement& statement) {
  WD_ASSIGN_OR_RETURN(std::vector<Value> kept, loop_items(statement));
  if (kept.empty()) return execute(statement.otherwise);
  WD_ASSIGN_OR_RETURN(const Value items, Value::list(std::move(kept), budget_));
  const std::vector<Value>& each = items.as_list()->items;
  for (size_t i = 0; i < each.size(); ++i) {
    scopes_.emplace_back();
    assign_name("loop", Value::loop(std::make_shared<const Loop>(Loop{items, i})));
    WD_TRY(assign(*statement.target, each[i]));
    WD_ASSIGN_OR_RETURN(const Flow flow, execute(statement.body));
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

// The items that a loop goes through: those for which its condition holds.
Result<std::vector<Value>> Interpreter::loop_items(const Statement& statement) {
  WD_ASSIGN_OR_RETURN(const Value iterable, evaluate(*statement.expression));
  WD_ASSIGN_OR_RETURN(std::vector<Value> items, items_of(iterable, budget_));
  if (statement.condition == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    scopes_.emplace_back();
    WD_TRY(assign(*statement.target, item));
    WD_ASSIGN_OR_RETURN(const Value condition, evaluate(*statement.condition));
    scopes_.pop_back();
    if (condition.truth()) kept.push_back(std::move(item));
  }
  return kept;
}

Status Interpreter::execute_set_block(const Statement& statement) {
  scopes_.emplace_back();
  WD_ASSIGN_OR_RETURN(Text text, printed_by(statement.body));
  scopes_.pop_back();
  // The filters stand around a kNone node, outermost last applied.
  std::vector<const Expression*> filters;
  for (const Expression* filter = statement.expression.get(); filter->kind == Node::kFilter;
       filter = filter->children[0].get()) {
    filters.push_back(filter);
  }
  Value value = Value::text(std::move(text));
  for (auto filter = filters.rbegin(); filter != filters.rend(); ++filter) {
    WD_ASSIGN_OR_RETURN(value, evaluate_filter(**filter, value));
  }
  return assign(*statement.target, std::move(value));
}

Status Interpreter::print(const Text& text) {
  const auto size = static_cast<int64_t>(out_->size() + text.size());
  if (size > budget_.limits().output_bytes_max) {
    return error(ErrorCode::kExhausted, "output of more than {} bytes",
                 budget_.limits().output_bytes_max);
  }
  WD_TRY(budget_.spend_bytes(text.size()));
  out_->append(text);
  return {};
}

Result<Text> Interpreter::printed_by(const Block& block) {
  Text text;
  Text* const outer = std::exchange(out_, &text);
  const auto flow = execute(block);
  out_ = outer;
  WD_TRY(flow);
  return text;
}

Status Interpreter::assign(const Expression& target, Value value) {
  if (target.kind == Node::kName) {
    assign_name(target.name, std::move(value));
    return {};
  }
  if (target.kind == Node::kAttribute) {
    WD_ASSIGN_OR_RETURN(const Value holder, look_up(target.children[0]->name));
    Namespace* const names = holder.as_namespace();
    if (names == nullptr) {
      return invalid_argument("'{}' is no namespace", target.children[0]->name.substr(0, 100));
    }
    for (auto& [name, member] : names->members) {
      if (name != target.name) continue;
      member = std::move(value);
      return {};
    }
    names->members.emplace_back(target.name, std::move(value));
    return {};
  }
  WD_ASSIGN_OR_RETURN(std::vector<Value> items, items_of(value, budget_));
  if (items.size() != target.children.size()) {
    return invalid_argument("{} values for {} names", items.size(), target.children.size());
  }
  for (size_t i = 0; i < items.size(); ++i) {
    WD_TRY(assign(*target.children[i], std::move(items[i])));
  }
  return {};
}

void Interpreter::assign_name(std::string_view name, Value value) {
  for (auto& [known, slot] : scopes_.back()) {
    if (known != name) continue;
    slot = std::move(value);
    return;
  }
  scopes_.back().emplace_back(name, std::move(value));
}

Result<Value> Interpreter::look_up(std::string_view name) {
  const auto find_in = [&](const Variables& scope) -> const Value* {
    for (const auto& [known, value] : scope) {
      if (known == name) return &value;
    }
    return nullptr;
  };
  for (size_t i = scopes_.size(); i-- > function_scope_;) {
    WD_TRY(budget_.spend_steps(static_cast<int64_t>(scopes_[i].size() / 16)));
    if (const Value* value = find_in(scopes_[i])) return *value;
  }
  if (function_scope_ > 0) {
    WD_TRY(budget_.spend_steps(static_cast<int64_t>(scopes_[0].size() / 16)));
    if (const Value* value = find_in(scopes_[0])) return *value;
  }
  if (is_global(name)) return Value::callable({Callable::Kind::kGlobal, std::string(name)});
  return Value::undefined(std::string(name));
}

// ---- expressions

Result<Value> Interpreter::evaluate(const Expression& expression) {
  const Level level(depth_);
  if (depth_ > budget_.limits().depth_max) {
    return error(ErrorCode::kExhausted, "nested deeper than {}", budget_.limits().depth_max);
  }
  line_ = expression.line;
  WD_TRY(budget_.spend_steps());
  return evaluate_kind(expression);
}

Result<Value> Interpreter::evaluate_kind(const Expression& expression) {
  switch (expression.kind) {
    case Node::kNone:
      return Value();
    case Node::kBool:
      return Value::boolean(expression.integer != 0);
    case Node::kInteger:
      return Value::integer(expression.integer);
    case Node::kFloat:
      return Value::number(expression.number);
    case Node::kString:
      WD_TRY(budget_.spend_bytes(expression.name.size()));
      return Value::text(expression.name);
    case Node::kName:
      return look_up(expression.name);
    case Node::kTuple:
    case Node::kList: {
      WD_ASSIGN_OR_RETURN(std::vector<Value> items, evaluate_all(expression));
      return expression.kind == Node::kTuple ? Value::tuple(std::move(items), budget_)
                                             : Value::list(std::move(items), budget_);
    }
    case Node::kDict:
      return evaluate_dict(expression);
    case Node::kAttribute: {
      WD_ASSIGN_OR_RETURN(const Value value, evaluate(*expression.children[0]));
      line_ = expression.line;
      return attribute_of(value, expression.name, budget_);
    }
    case Node::kItem:
      return evaluate_item(expression);
    case Node::kSlice:
      return evaluate_slice(expression);
    case Node::kCall:
      return evaluate_call(expression);
    case Node::kFilter: {
      WD_ASSIGN_OR_RETURN(const Value operand, evaluate(*expression.children[0]));
      return evaluate_filter(expression, operand);
    }
    case Node::kTest:
      return evaluate_test(expression);
    case Node::kNot: {
      WD_ASSIGN_OR_RETURN(const Value value, evaluate(*expression.children[0]));
      return Value::boolean(!value.truth());
    }
    case Node::kNegate:
    case Node::kPositive:
      return evaluate_sign(expression);
    case Node::kBinary:
      return evaluate_binary(expression);
    case Node::kConcat:
      return evaluate_concat(expression);
    case Node::kCompare:
      return evaluate_compare(expression);
    case Node::kAnd:
    case Node::kOr: {
      WD_ASSIGN_OR_RETURN(Value left, evaluate(*expression.children[0]));
      if (left.truth() == (expression.kind == Node::kOr)) return left;
      return evaluate(*expression.children[1]);
    }
    case Node::kConditional: {
      WD_ASSIGN_OR_RETURN(const Value condition, evaluate(*expression.children[0]));
      if (condition.truth()) return evaluate(*expression.children[1]);
      if (expression.children[2] != nullptr) return evaluate(*expression.children[2]);
      return Value::undefined("inline if without else");
    }
  }
  return Value();
}

Result<std::vector<Value>> Interpreter::evaluate_all(const Expression& expression) {
  std::vector<Value> values;
  for (const ExpressionPtr& child : expression.children) {
    WD_ASSIGN_OR_RETURN(Value value, evaluate(*child));
    values.push_back(std::move(value));
  }
  return values;
}

Result<Value> Interpreter::evaluate_dict(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const std::vector<Value> values, evaluate_all(expression));
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i + 1 < values.size(); i += 2) {
    WD_TRY(check_hashable(values[i]));
    // A key that is there already keeps its place and gets the new value.
    Value* existing = nullptr;
    for (auto& [key, value] : entries) {
      WD_ASSIGN_OR_RETURN(const bool same, equal(key, values[i], budget_));
      if (same) existing = &value;
    }
    if (existing != nullptr) {
      *existing = values[i + 1];
    } else {
      entries.emplace_back(values[i], values[i + 1]);
    }
  }
  return Value::dict(std::move(entries), budget_);
}

Result<Value> Interpreter::evaluate_item(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const Value value, evaluate(*expression.children[0]));
  WD_ASSIGN_OR_RETURN(const Value key, evaluate(*expression.children[1]));
  line_ = expression.line;
  return item_of(value, key, budget_);
}

Result<Value> Interpreter::evaluate_slice(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const Value value, evaluate(*expression.children[0]));
  SliceBounds bounds;
  size_t child = 1;
  for (std::optional<int64_t>* bound : {&bounds.begin, &bounds.end, &bounds.step}) {
    const ExpressionPtr& part = expression.children[child++];
    if (part == nullptr) continue;
    WD_ASSIGN_OR_RETURN(const Value number, evaluate(*part));
    if (number.is(Value::Kind::kNone)) continue;
    *bound = number.as_integer();
    if (!*bound) return invalid_argument("a slice needs ints, not {}", number.kind_name());
  }
  if (value.is(Value::Kind::kUndefined)) return undefined_error(value);
  if (value.as_list() == nullptr && value.as_text() == nullptr) {
    return invalid_argument("{} cannot be sliced", value.kind_name());
  }
  WD_ASSIGN_OR_RETURN(const int64_t length, length_of(value));
  WD_ASSIGN_OR_RETURN(const SliceRange range, slice_range(bounds, length));
  if (const Text* text = value.as_text()) {
    WD_TRY(budget_.spend_bytes(text->size()));
    return Value::text(slice(*text, range));
  }
  const List& list = *value.as_list();
  std::vector<Value> items;
  for (int64_t i = 0; i < range.count; ++i) {
    items.push_back(list.items[static_cast<size_t>(range.first + i * range.step)]);
  }
  return list.is_tuple ? Value::tuple(std::move(items), budget_)
                       : Value::list(std::move(items), budget_);
}

// What stands behind the callee or operand, child 0.
Result<Arguments> Interpreter::arguments_of(const Expression& expression) {
  Arguments arguments;
  for (size_t i = 1; i < expression.children.size(); ++i) {
    WD_ASSIGN_OR_RETURN(Value value, evaluate(*expression.children[i]));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, child] : expression.keywords) {
    WD_ASSIGN_OR_RETURN(Value value, evaluate(*child));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

Result<Value> Interpreter::evaluate_call(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const Value callee, evaluate(*expression.children[0]));
  WD_ASSIGN_OR_RETURN(const Arguments arguments, arguments_of(expression));
  line_ = expression.line;
  if (callee.is(Value::Kind::kUndefined)) return undefined_error(callee);
  const Callable* callable = callee.as_callable();
  if (callable == nullptr) return invalid_argument("{} cannot be called", callee.kind_name());
  return call(*callable, arguments);
}

Result<Value> Interpreter::call(const Callable& callable, const Arguments& arguments) {
  switch (callable.kind) {
    case Callable::Kind::kGlobal:
      return call_global(callable.name, arguments, runtime_);
    case Callable::Kind::kMethod:
      return call_method(callable.self, callable.name, arguments, runtime_);
    case Callable::Kind::kLoopCycle: {
      if (arguments.positional.empty()) return invalid_argument("cycle needs values");
      const size_t turn = callable.self.as_loop()->index % arguments.positional.size();
      return arguments.positional[turn];
    }
    case Callable::Kind::kMacro:
      return call_macro(*callable.macro, arguments);
  }
  return Value();
}

Result<Value> Interpreter::call_macro(const Statement& macro, const Arguments& arguments) {
  const std::vector<MacroParameter>& parameters = macro.parameters;
  if (arguments.positional.size() > parameters.size()) {
    return invalid_argument("macro '{}' takes {} arguments, {} given", macro.name,
                            parameters.size(), arguments.positional.size());
  }
  const size_t outer_function = std::exchange(function_scope_, scopes_.size());
  scopes_.emplace_back();
  for (size_t i = 0; i < parameters.size(); ++i) {
    Value value = Value::undefined(parameters[i].name);
    const auto named = std::ranges::find(arguments.named, parameters[i].name,
                                         &std::pair<std::string, Value>::first);
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else if (named != arguments.named.end()) {
      value = named->second;
    } else if (parameters[i].otherwise != nullptr) {
      WD_ASSIGN_OR_RETURN(value, evaluate(*parameters[i].otherwise));
    }
    assign_name(parameters[i].name, std::move(value));
  }
  for (const auto& [name, unused] : arguments.named) {
    if (std::ranges::find(parameters, name, &MacroParameter::name) == parameters.end()) {
      return invalid_argument("macro '{}' has no parameter '{}'", macro.name, name);
    }
  }
  WD_ASSIGN_OR_RETURN(Text text, printed_by(macro.body));
  scopes_.pop_back();
  function_scope_ = outer_function;
  return Value::text(std::move(text));
}

Result<Value> Interpreter::evaluate_filter(const Expression& expression, const Value& operand) {
  WD_ASSIGN_OR_RETURN(const Arguments arguments, arguments_of(expression));
  line_ = expression.line;
  return apply_filter(expression.name, operand, arguments, runtime_);
}

Result<Value> Interpreter::evaluate_test(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const Value operand, evaluate(*expression.children[0]));
  WD_ASSIGN_OR_RETURN(const Arguments arguments, arguments_of(expression));
  line_ = expression.line;
  WD_ASSIGN_OR_RETURN(const bool passed, apply_test(expression.name, operand, arguments, runtime_));
  return Value::boolean(passed);
}

Result<Value> Interpreter::evaluate_sign(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const Value operand, evaluate(*expression.children[0]));
  line_ = expression.line;
  // Not 0 - x: that would lose the sign of zero.
  const int64_t sign = expression.kind == Node::kNegate ? -1 : 1;
  if (operand.as_text() != nullptr || operand.as_list() != nullptr) {
    return invalid_argument("a {} has no sign", operand.kind_name());
  }
  return apply_operator("*", operand, Value::integer(sign), budget_);
}

Result<Value> Interpreter::evaluate_binary(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const Value left, evaluate(*expression.children[0]));
  WD_ASSIGN_OR_RETURN(const Value right, evaluate(*expression.children[1]));
  line_ = expression.line;
  return apply_operator(expression.name, left, right, budget_);
}

Result<Value> Interpreter::evaluate_concat(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(const std::vector<Value> values, evaluate_all(expression));
  Text text;
  for (const Value& value : values) {
    WD_ASSIGN_OR_RETURN(const Text part, to_text(value, budget_));
    WD_TRY(budget_.spend_bytes(part.size()));
    text.append(part);
  }
  return Value::text(std::move(text));
}

Result<Value> Interpreter::evaluate_compare(const Expression& expression) {
  WD_ASSIGN_OR_RETURN(Value left, evaluate(*expression.children[0]));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    const std::string& op = expression.operators[i];
    WD_ASSIGN_OR_RETURN(Value right, evaluate(*expression.children[i + 1]));
    line_ = expression.line;
    bool holds = false;
    if (op == "==" || op == "!=") {
      WD_ASSIGN_OR_RETURN(const bool same, equal(left, right, budget_));
      holds = same == (op == "==");
    } else if (op == "in" || op == "not in") {
      WD_ASSIGN_OR_RETURN(const bool found, contains(right, left, budget_));
      holds = found == (op == "in");
    } else {
      WD_ASSIGN_OR_RETURN(const int order, compare(left, right, budget_));
      holds = order == 0 ? op.ends_with('=') : (order < 0) == (op[0] == '<');
    }
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

}  // namespace wideep::tokenizer
