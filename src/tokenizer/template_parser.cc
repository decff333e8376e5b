#include "tokenizer/template_parser.h"

#include "tokenizer/template_cursor.h"
#include "tokenizer/template_expression_parser.h"
#include "tokenizer/template_lexer.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

namespace wideep::tokenizer {
namespace {

using Kind = TemplateToken::Kind;

class StatementParser {
 public:
  StatementParser(std::vector<TemplateToken> tokens, const ParseLimits& limits)
      : cursor_(std::move(tokens), limits.nesting_max), expressions_(cursor_, limits.depth_max) {}

  // The whole template.
  Result<Block> run() { return statements({}); }

 private:
  // Statements up to a block whose name is one of `ends`, which stays; or to the end if there are
  // none.
  Result<Block> statements(std::initializer_list<std::string_view> ends) {
    const TokenCursor::Level level(cursor_);
    WD_TRY(level.check());
    Block block;
    for (;;) {
      const TemplateToken token = cursor_.now();
      if (token.kind == Kind::kEnd) {
        if (ends.size() == 0) return block;
        return cursor_.fail("expected '{}' before the end of the template", *(ends.end() - 1));
      }
      if (token.kind == Kind::kText) {
        cursor_.advance();
        block.push_back({.kind = Statement::Kind::kText, .line = token.line, .name = token.text});
      } else if (token.kind == Kind::kOutputBegin) {
        cursor_.advance();
        Statement output{.kind = Statement::Kind::kOutput, .line = token.line};
        WD_ASSIGN_OR_RETURN(output.expression, expressions_.tuple());
        WD_TRY(cursor_.expect(Kind::kOutputEnd, "'}}'"));
        block.push_back(std::move(output));
      } else {
        WD_TRY(cursor_.expect(Kind::kBlockBegin, "'{%'"));
        if (cursor_.now().kind == Kind::kName &&
            std::ranges::find(ends, cursor_.now().text) != ends.end()) {
          return block;
        }
        WD_ASSIGN_OR_RETURN(Statement statement, block_statement());
        block.push_back(std::move(statement));
      }
    }
  }

  Status end_block() { return cursor_.expect(Kind::kBlockEnd, "'%}'"); }

  // Takes the closing name that statements() stopped at, and the block's end.
  Status close_block() {
    cursor_.advance();
    return end_block();
  }

  Result<Statement> block_statement() {
    const int line = cursor_.now().line;
    WD_ASSIGN_OR_RETURN(const std::string name, cursor_.expect_name("a statement"));
    if (name == "if") return if_statement(line);
    if (name == "for") return for_statement(line);
    if (name == "set") return set_statement(line);
    if (name == "macro") return macro_statement(line);
    if (name == "generation") {
      Statement group{.kind = Statement::Kind::kGroup, .line = line};
      WD_TRY(end_block());
      WD_ASSIGN_OR_RETURN(group.body, statements({"endgeneration"}));
      WD_TRY(close_block());
      return group;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return invalid_argument("line {}: '{}' outside of a loop", line, name);
      WD_TRY(end_block());
      return Statement{
          .kind = name == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue,
          .line = line};
    }
    return invalid_argument("line {}: statement '{}' is not supported", line, name.substr(0, 40));
  }

  // From behind `if` or `elif`.
  Result<Statement> if_statement(int line) {
    const TokenCursor::Level level(cursor_);
    WD_TRY(level.check());
    Statement statement{.kind = Statement::Kind::kIf, .line = line};
    WD_ASSIGN_OR_RETURN(statement.expression,
                        expressions_.tuple(ExpressionParser::Conditional::kNo));
    WD_TRY(end_block());
    WD_ASSIGN_OR_RETURN(statement.body, statements({"elif", "else", "endif"}));
    if (cursor_.is_name("elif")) {
      const int elif_line = cursor_.now().line;
      cursor_.advance();
      WD_ASSIGN_OR_RETURN(Statement rest, if_statement(elif_line));
      statement.otherwise.push_back(std::move(rest));
      return statement;
    }
    if (cursor_.take_name("else")) {
      WD_TRY(end_block());
      WD_ASSIGN_OR_RETURN(statement.otherwise, statements({"endif"}));
    }
    WD_TRY(close_block());
    return statement;
  }

  Result<Statement> for_statement(int line) {
    Statement statement{.kind = Statement::Kind::kFor, .line = line};
    WD_ASSIGN_OR_RETURN(statement.target,
                        expressions_.target(ExpressionParser::Attributes::kRefused));
    if (!cursor_.take_name("in"))
      return cursor_.fail("expected 'in', found {}", cursor_.describe_now());
    WD_ASSIGN_OR_RETURN(statement.expression,
                        expressions_.tuple(ExpressionParser::Conditional::kNo));
    if (cursor_.take_name("if")) {
      WD_ASSIGN_OR_RETURN(statement.condition, expressions_.expression());
    }
    if (cursor_.is_name("recursive")) return cursor_.fail("recursive loops are not supported");
    WD_TRY(end_block());
    ++loops_;
    auto body = statements({"else", "endfor"});
    --loops_;
    WD_ASSIGN_OR_RETURN(statement.body, std::move(body));
    if (cursor_.take_name("else")) {
      WD_TRY(end_block());
      WD_ASSIGN_OR_RETURN(statement.otherwise, statements({"endfor"}));
    }
    WD_TRY(close_block());
    return statement;
  }

  Result<Statement> set_statement(int line) {
    Statement statement{.kind = Statement::Kind::kSet, .line = line};
    WD_ASSIGN_OR_RETURN(statement.target,
                        expressions_.target(ExpressionParser::Attributes::kAllowed));
    if (cursor_.take_operator("=")) {
      WD_ASSIGN_OR_RETURN(statement.expression, expressions_.tuple());
      WD_TRY(end_block());
      return statement;
    }
    statement.kind = Statement::Kind::kSetBlock;
    WD_ASSIGN_OR_RETURN(statement.expression, expressions_.make(Expression::Kind::kNone, line));
    while (cursor_.is_operator("|")) {
      WD_ASSIGN_OR_RETURN(statement.expression,
                          expressions_.filter(std::move(statement.expression)));
    }
    WD_TRY(end_block());
    WD_ASSIGN_OR_RETURN(statement.body, statements({"endset"}));
    WD_TRY(close_block());
    return statement;
  }

  Result<Statement> macro_statement(int line) {
    // A macro sees the template's variables only, so one inside a loop or macro would be misread.
    if (loops_ > 0 || in_macro_) {
      return invalid_argument("line {}: a macro inside a loop or macro is not supported", line);
    }
    Statement statement{.kind = Statement::Kind::kMacro, .line = line};
    WD_ASSIGN_OR_RETURN(statement.name, cursor_.expect_name("a macro's name"));
    WD_TRY(cursor_.expect_operator("("));
    while (!cursor_.is_operator(")")) {
      if (!statement.parameters.empty()) WD_TRY(cursor_.expect_operator(","));
      MacroParameter parameter;
      WD_ASSIGN_OR_RETURN(parameter.name, cursor_.expect_name("a parameter"));
      if (cursor_.take_operator("=")) {
        WD_ASSIGN_OR_RETURN(parameter.otherwise, expressions_.expression());
      }
      statement.parameters.push_back(std::move(parameter));
    }
    cursor_.advance();
    WD_TRY(end_block());
    in_macro_ = true;
    auto body = statements({"endmacro"});
    in_macro_ = false;
    WD_ASSIGN_OR_RETURN(statement.body, std::move(body));
    WD_TRY(close_block());
    return statement;
  }

  TokenCursor cursor_;
  ExpressionParser expressions_;
  int loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace

Result<Block> parse_template(std::string_view source, const ParseLimits& limits) {
  if (source.size() > limits.source_bytes_max) {
    return error(ErrorCode::kExhausted, "template has {} bytes, at most {} allowed", source.size(),
                 limits.source_bytes_max);
  }
  WD_ASSIGN_OR_RETURN(std::vector<TemplateToken> tokens, lex_template(source));
  return StatementParser(std::move(tokens), limits).run();
}

}  // namespace wideep::tokenizer
