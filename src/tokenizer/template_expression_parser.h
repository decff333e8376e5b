// Jinja's expressions, by recursive descent with Jinja's own precedence, loosest first:
// if-else, or, and, not, comparisons, + -, ~, * / // %, signs, calls and subscripts, filters,
// tests.
#pragma once

#include "base/result.h"
#include "tokenizer/template_ast.h"
#include "tokenizer/template_cursor.h"

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace wideep::tokenizer {

class ExpressionParser {
 public:
  // Reads from `cursor`, which must outlive it. `depth_max` bounds each expression's tree.
  ExpressionParser(TokenCursor& cursor, int depth_max) : cursor_(cursor), depth_max_(depth_max) {}

  enum class Conditional { kYes, kNo };
  enum class Attributes { kAllowed, kRefused };

  // One expression, or several with commas, which make a tuple.
  Result<ExpressionPtr> tuple(Conditional conditional = Conditional::kYes);
  Result<ExpressionPtr> expression(Conditional conditional = Conditional::kYes);
  // What can be assigned to: name, or name, name (also in brackets), or name.attribute.
  Result<ExpressionPtr> target(Attributes attributes);
  // From the `|` on.
  Result<ExpressionPtr> filter(ExpressionPtr operand);

  // A node of `kind` over `children`, of which some may be nullptr.
  template <typename... Children>
  Result<ExpressionPtr> make(Expression::Kind kind, int line, Children... children) const {
    auto node = std::make_unique<Expression>(Expression{.kind = kind, .line = line});
    (node->children.push_back(std::move(children)), ...);
    return measured(std::move(node));
  }

 private:
  Result<ExpressionPtr> measured(ExpressionPtr node) const;
  bool ends_tuple() const;
  Result<ExpressionPtr> or_expression();
  Result<ExpressionPtr> and_expression();
  Result<ExpressionPtr> not_expression();
  std::string take_comparison();
  Result<ExpressionPtr> comparison();
  Result<ExpressionPtr> binary(std::initializer_list<std::string_view> operators,
                               Result<ExpressionPtr> (ExpressionParser::*operand)());
  Result<ExpressionPtr> sum();
  Result<ExpressionPtr> concatenation();
  Result<ExpressionPtr> product();
  Result<ExpressionPtr> filtered_unary();
  Result<ExpressionPtr> unary();
  Result<ExpressionPtr> primary();
  Result<ExpressionPtr> named(const TemplateToken& token) const;
  Result<ExpressionPtr> number(const TemplateToken& token) const;
  Result<ExpressionPtr> bracketed(int line);
  Result<ExpressionPtr> items(Expression::Kind kind, std::string_view close, int line);
  Result<ExpressionPtr> with_postfix(ExpressionPtr operand);
  Result<ExpressionPtr> with_filters(ExpressionPtr operand);
  Result<ExpressionPtr> attribute(ExpressionPtr operand);
  Result<ExpressionPtr> subscript(ExpressionPtr operand);
  Status arguments(Expression& node);
  Result<ExpressionPtr> call(ExpressionPtr operand);
  Result<ExpressionPtr> test(ExpressionPtr operand);
  bool starts_test_argument() const;

  TokenCursor& cursor_;
  int depth_max_;
};

}  // namespace wideep::tokenizer
