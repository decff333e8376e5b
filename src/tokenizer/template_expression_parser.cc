#include "tokenizer/template_expression_parser.h"

#include "tokenizer/template_filters.h"
#include "tokenizer/template_functions.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace wideep::tokenizer {

using Kind = TemplateToken::Kind;
using Node = Expression::Kind;

// Sets the depth once all children are there.
Result<ExpressionPtr> ExpressionParser::measured(ExpressionPtr node) const {
  for (const ExpressionPtr& child : node->children) {
    if (child) node->depth = std::max(node->depth, child->depth + 1);
  }
  for (const auto& [name, value] : node->keywords) {
    node->depth = std::max(node->depth, value->depth + 1);
  }
  if (node->depth > depth_max_) {
    return cursor_.fail("expression is deeper than {}", depth_max_);
  }
  return node;
}

// name, or name, name (also in brackets), or name.attribute.
Result<ExpressionPtr> ExpressionParser::target(Attributes attributes) {
  const int line = cursor_.now().line;
  const bool bracket = cursor_.take_operator("(");
  std::vector<ExpressionPtr> names;
  bool is_tuple = false;
  while (cursor_.now().kind == Kind::kName && !cursor_.is_name("in")) {
    WD_ASSIGN_OR_RETURN(ExpressionPtr name, make(Node::kName, line));
    name->name = cursor_.now().text;
    cursor_.advance();
    if (attributes == Attributes::kAllowed && names.empty() && !bracket &&
        cursor_.take_operator(".")) {
      WD_ASSIGN_OR_RETURN(ExpressionPtr attribute, make(Node::kAttribute, line, std::move(name)));
      WD_ASSIGN_OR_RETURN(attribute->name, cursor_.expect_name("an attribute"));
      return attribute;
    }
    names.push_back(std::move(name));
    if (!cursor_.take_operator(",")) break;
    is_tuple = true;
  }
  if (bracket) WD_TRY(cursor_.expect_operator(")"));
  if (names.empty())
    return cursor_.fail("expected a name to assign to, found {}", cursor_.describe_now());
  if (!is_tuple) return std::move(names.front());
  WD_ASSIGN_OR_RETURN(ExpressionPtr tuple, make(Node::kTuple, line));
  tuple->children = std::move(names);
  return measured(std::move(tuple));
}

// One expression, or several with commas, which make a tuple.
Result<ExpressionPtr> ExpressionParser::tuple(Conditional conditional) {
  const int line = cursor_.now().line;
  WD_ASSIGN_OR_RETURN(ExpressionPtr first, expression(conditional));
  if (!cursor_.is_operator(",")) return first;
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kTuple, line, std::move(first)));
  while (cursor_.take_operator(",") && !ends_tuple()) {
    WD_ASSIGN_OR_RETURN(ExpressionPtr item, expression(conditional));
    result->children.push_back(std::move(item));
  }
  return measured(std::move(result));
}

bool ExpressionParser::ends_tuple() const {
  return cursor_.now().kind == Kind::kOutputEnd || cursor_.now().kind == Kind::kBlockEnd ||
         cursor_.is_operator(")");
}

Result<ExpressionPtr> ExpressionParser::expression(Conditional conditional) {
  const TokenCursor::Level level(cursor_);
  WD_TRY(level.check());
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, or_expression());
  while (conditional == Conditional::kYes && cursor_.is_name("if")) {
    const int line = cursor_.now().line;
    cursor_.advance();
    WD_ASSIGN_OR_RETURN(ExpressionPtr condition, or_expression());
    ExpressionPtr otherwise;
    if (cursor_.take_name("else")) {
      WD_ASSIGN_OR_RETURN(otherwise, expression());
    }
    WD_ASSIGN_OR_RETURN(result, make(Node::kConditional, line, std::move(condition),
                                     std::move(result), std::move(otherwise)));
  }
  return result;
}

Result<ExpressionPtr> ExpressionParser::or_expression() {
  WD_ASSIGN_OR_RETURN(ExpressionPtr left, and_expression());
  while (cursor_.is_name("or")) {
    const int line = cursor_.now().line;
    cursor_.advance();
    WD_ASSIGN_OR_RETURN(ExpressionPtr right, and_expression());
    WD_ASSIGN_OR_RETURN(left, make(Node::kOr, line, std::move(left), std::move(right)));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::and_expression() {
  WD_ASSIGN_OR_RETURN(ExpressionPtr left, not_expression());
  while (cursor_.is_name("and")) {
    const int line = cursor_.now().line;
    cursor_.advance();
    WD_ASSIGN_OR_RETURN(ExpressionPtr right, not_expression());
    WD_ASSIGN_OR_RETURN(left, make(Node::kAnd, line, std::move(left), std::move(right)));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::not_expression() {
  if (!cursor_.is_name("not")) return comparison();
  const TokenCursor::Level level(cursor_);
  WD_TRY(level.check());
  const int line = cursor_.now().line;
  cursor_.advance();
  WD_ASSIGN_OR_RETURN(ExpressionPtr operand, not_expression());
  return make(Node::kNot, line, std::move(operand));
}

// The comparison that is next ("not in" is one), or "" if there is none.
std::string ExpressionParser::take_comparison() {
  static constexpr std::array<std::string_view, 6> kOperators = {"==", "!=", "<=", ">=", "<", ">"};
  for (const std::string_view each : kOperators) {
    if (cursor_.take_operator(each)) return std::string(each);
  }
  if (cursor_.take_name("in")) return "in";
  if (cursor_.is_name("not") && cursor_.next().is(Kind::kName, "in")) {
    cursor_.advance();
    cursor_.advance();
    return "not in";
  }
  return "";
}

Result<ExpressionPtr> ExpressionParser::comparison() {
  const int line = cursor_.now().line;
  WD_ASSIGN_OR_RETURN(ExpressionPtr first, sum());
  std::string comparison = take_comparison();
  if (comparison.empty()) return first;
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kCompare, line, std::move(first)));
  for (; !comparison.empty(); comparison = take_comparison()) {
    WD_ASSIGN_OR_RETURN(ExpressionPtr operand, sum());
    result->operators.push_back(comparison);
    result->children.push_back(std::move(operand));
  }
  return measured(std::move(result));
}

Result<ExpressionPtr> ExpressionParser::binary(
    std::initializer_list<std::string_view> operators,
    Result<ExpressionPtr> (ExpressionParser::*operand)()) {
  WD_ASSIGN_OR_RETURN(ExpressionPtr left, (this->*operand)());
  for (;;) {
    const int line = cursor_.now().line;
    const auto found =
        std::ranges::find_if(operators, [&](auto op) { return cursor_.is_operator(op); });
    if (found == operators.end()) return left;
    cursor_.advance();
    WD_ASSIGN_OR_RETURN(ExpressionPtr right, (this->*operand)());
    WD_ASSIGN_OR_RETURN(left, make(Node::kBinary, line, std::move(left), std::move(right)));
    left->name = *found;
  }
}

Result<ExpressionPtr> ExpressionParser::sum() {
  return binary({"+", "-"}, &ExpressionParser::concatenation);
}

Result<ExpressionPtr> ExpressionParser::concatenation() {
  const int line = cursor_.now().line;
  WD_ASSIGN_OR_RETURN(ExpressionPtr first, product());
  if (!cursor_.is_operator("~")) return first;
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kConcat, line, std::move(first)));
  while (cursor_.take_operator("~")) {
    WD_ASSIGN_OR_RETURN(ExpressionPtr operand, product());
    result->children.push_back(std::move(operand));
  }
  return measured(std::move(result));
}

Result<ExpressionPtr> ExpressionParser::product() {
  return binary({"*", "/", "//", "%"}, &ExpressionParser::filtered_unary);
}

Result<ExpressionPtr> ExpressionParser::filtered_unary() {
  WD_ASSIGN_OR_RETURN(ExpressionPtr operand, unary());
  if (cursor_.is_operator("**")) return cursor_.fail("operator '**' is not supported");
  return with_filters(std::move(operand));
}

Result<ExpressionPtr> ExpressionParser::unary() {
  const TokenCursor::Level level(cursor_);
  WD_TRY(level.check());
  const int line = cursor_.now().line;
  if (cursor_.is_operator("-") || cursor_.is_operator("+")) {
    const Node kind = cursor_.is_operator("-") ? Node::kNegate : Node::kPositive;
    cursor_.advance();
    WD_ASSIGN_OR_RETURN(ExpressionPtr operand, unary());
    WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(kind, line, std::move(operand)));
    return with_postfix(std::move(result));
  }
  WD_ASSIGN_OR_RETURN(ExpressionPtr operand, primary());
  return with_postfix(std::move(operand));
}

Result<ExpressionPtr> ExpressionParser::primary() {
  const TemplateToken token = cursor_.now();
  switch (token.kind) {
    case Kind::kName:
      cursor_.advance();
      return named(token);
    case Kind::kString: {
      WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kString, token.line));
      for (; cursor_.now().kind == Kind::kString; cursor_.advance())
        result->name += cursor_.now().text;
      return result;
    }
    case Kind::kInteger:
    case Kind::kFloat:
      cursor_.advance();
      return number(token);
    default:
      break;
  }
  if (cursor_.take_operator("(")) return bracketed(token.line);
  if (cursor_.take_operator("[")) return items(Node::kList, "]", token.line);
  if (cursor_.take_operator("{")) return items(Node::kDict, "}", token.line);
  return cursor_.fail("expected an expression, found {}", cursor_.describe_now());
}

Result<ExpressionPtr> ExpressionParser::named(const TemplateToken& token) const {
  if (token.text == "true" || token.text == "True" || token.text == "false" ||
      token.text == "False") {
    WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kBool, token.line));
    result->integer = token.text == "true" || token.text == "True";
    return result;
  }
  if (token.text == "none" || token.text == "None") return make(Node::kNone, token.line);
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kName, token.line));
  result->name = token.text;
  return result;
}

Result<ExpressionPtr> ExpressionParser::number(const TemplateToken& token) const {
  const bool is_integer = token.kind == Kind::kInteger;
  WD_ASSIGN_OR_RETURN(ExpressionPtr result,
                      make(is_integer ? Node::kInteger : Node::kFloat, token.line));
  const char* const end = token.text.data() + token.text.size();
  const auto read = is_integer ? std::from_chars(token.text.data(), end, result->integer)
                               : std::from_chars(token.text.data(), end, result->number);
  if (read.ec != std::errc() || read.ptr != end) {
    return invalid_argument("line {}: number {} is out of range", token.line,
                            token.text.substr(0, 40));
  }
  return result;
}

// Behind "(": () is the empty tuple, (x) is x.
Result<ExpressionPtr> ExpressionParser::bracketed(int line) {
  if (cursor_.take_operator(")")) return make(Node::kTuple, line);
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, tuple());
  WD_TRY(cursor_.expect_operator(")"));
  return result;
}

Result<ExpressionPtr> ExpressionParser::items(Node kind, std::string_view close, int line) {
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(kind, line));
  while (!cursor_.take_operator(close)) {
    if (!result->children.empty()) {
      WD_TRY(cursor_.expect_operator(","));
      if (cursor_.take_operator(close)) break;
    }
    WD_ASSIGN_OR_RETURN(ExpressionPtr item, expression());
    result->children.push_back(std::move(item));
    if (kind == Node::kDict) {
      WD_TRY(cursor_.expect_operator(":"));
      WD_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
      result->children.push_back(std::move(value));
    }
  }
  return measured(std::move(result));
}

Result<ExpressionPtr> ExpressionParser::with_postfix(ExpressionPtr operand) {
  for (;;) {
    if (cursor_.is_operator(".")) {
      WD_ASSIGN_OR_RETURN(operand, attribute(std::move(operand)));
    } else if (cursor_.is_operator("[")) {
      WD_ASSIGN_OR_RETURN(operand, subscript(std::move(operand)));
    } else if (cursor_.is_operator("(")) {
      WD_ASSIGN_OR_RETURN(operand, call(std::move(operand)));
    } else {
      return operand;
    }
  }
}

Result<ExpressionPtr> ExpressionParser::with_filters(ExpressionPtr operand) {
  for (;;) {
    if (cursor_.is_operator("|")) {
      WD_ASSIGN_OR_RETURN(operand, filter(std::move(operand)));
    } else if (cursor_.is_name("is")) {
      WD_ASSIGN_OR_RETURN(operand, test(std::move(operand)));
    } else if (cursor_.is_operator("(")) {
      WD_ASSIGN_OR_RETURN(operand, call(std::move(operand)));
    } else {
      return operand;
    }
  }
}

Result<ExpressionPtr> ExpressionParser::attribute(ExpressionPtr operand) {
  const int line = cursor_.now().line;
  cursor_.advance();
  if (cursor_.now().kind == Kind::kInteger) {
    const TemplateToken token = cursor_.now();
    cursor_.advance();
    WD_ASSIGN_OR_RETURN(ExpressionPtr position, number(token));
    return make(Node::kItem, line, std::move(operand), std::move(position));
  }
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kAttribute, line, std::move(operand)));
  WD_ASSIGN_OR_RETURN(result->name, cursor_.expect_name("an attribute"));
  return result;
}

Result<ExpressionPtr> ExpressionParser::subscript(ExpressionPtr operand) {
  const int line = cursor_.now().line;
  cursor_.advance();
  std::array<ExpressionPtr, 3> parts;
  size_t count = 0;
  if (!cursor_.is_operator(":")) {
    WD_ASSIGN_OR_RETURN(parts[0], expression());
  }
  while (count < 2 && cursor_.take_operator(":")) {
    ++count;
    if (cursor_.is_operator(":") || cursor_.is_operator("]")) continue;
    WD_ASSIGN_OR_RETURN(parts[count], expression());
  }
  WD_TRY(cursor_.expect_operator("]"));
  if (count == 0) return make(Node::kItem, line, std::move(operand), std::move(parts[0]));
  return make(Node::kSlice, line, std::move(operand), std::move(parts[0]), std::move(parts[1]),
              std::move(parts[2]));
}

// The arguments in brackets, added to `node`.
Status ExpressionParser::arguments(Expression& node) {
  WD_TRY(cursor_.expect_operator("("));
  bool first = true;
  while (!cursor_.take_operator(")")) {
    if (!first) {
      WD_TRY(cursor_.expect_operator(","));
      if (cursor_.take_operator(")")) break;
    }
    first = false;
    if (cursor_.is_operator("*") || cursor_.is_operator("**"))
      return cursor_.fail("unpacking is not supported");
    if (cursor_.now().kind == Kind::kName && cursor_.next().is(Kind::kOperator, "=")) {
      std::string name = cursor_.now().text;
      cursor_.advance();
      cursor_.advance();
      WD_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
      node.keywords.emplace_back(std::move(name), std::move(value));
      continue;
    }
    if (!node.keywords.empty()) return cursor_.fail("positional argument after a keyword argument");
    WD_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
    node.children.push_back(std::move(value));
  }
  return {};
}

Result<ExpressionPtr> ExpressionParser::call(ExpressionPtr operand) {
  WD_ASSIGN_OR_RETURN(ExpressionPtr result,
                      make(Node::kCall, cursor_.now().line, std::move(operand)));
  WD_TRY(arguments(*result));
  return measured(std::move(result));
}

Result<ExpressionPtr> ExpressionParser::filter(ExpressionPtr operand) {
  cursor_.advance();
  WD_ASSIGN_OR_RETURN(ExpressionPtr result,
                      make(Node::kFilter, cursor_.now().line, std::move(operand)));
  WD_ASSIGN_OR_RETURN(result->name, cursor_.expect_name("a filter"));
  if (!is_filter(result->name)) {
    return cursor_.fail("filter '{}' is not supported", result->name.substr(0, 40));
  }
  if (cursor_.is_operator("(")) WD_TRY(arguments(*result));
  return measured(std::move(result));
}

// From `is` on. A test may take one argument without brackets: x is divisibleby 3.
Result<ExpressionPtr> ExpressionParser::test(ExpressionPtr operand) {
  const int line = cursor_.now().line;
  cursor_.advance();
  const bool negated = cursor_.take_name("not");
  WD_ASSIGN_OR_RETURN(ExpressionPtr result, make(Node::kTest, line, std::move(operand)));
  WD_ASSIGN_OR_RETURN(result->name, cursor_.expect_name("a test"));
  if (!is_test(result->name))
    return cursor_.fail("test '{}' is not supported", result->name.substr(0, 40));
  if (cursor_.is_operator("(")) {
    WD_TRY(arguments(*result));
  } else if (starts_test_argument()) {
    if (cursor_.is_name("is")) return cursor_.fail("tests cannot be chained");
    WD_ASSIGN_OR_RETURN(ExpressionPtr argument, primary());
    WD_ASSIGN_OR_RETURN(argument, with_postfix(std::move(argument)));
    result->children.push_back(std::move(argument));
  }
  WD_ASSIGN_OR_RETURN(result, measured(std::move(result)));
  return negated ? make(Node::kNot, line, std::move(result)) : std::move(result);
}

bool ExpressionParser::starts_test_argument() const {
  switch (cursor_.now().kind) {
    case Kind::kName:
      return !cursor_.is_name("else") && !cursor_.is_name("or") && !cursor_.is_name("and");
    case Kind::kString:
    case Kind::kInteger:
    case Kind::kFloat:
      return true;
    default:
      return cursor_.is_operator("[") || cursor_.is_operator("{");
  }
}

}  // namespace wideep::tokenizer
