// The syntax tree of a Jinja template. Built by template_parser.h, walked by
// template_interpreter.h; immutable once built.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::tokenizer {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kNone,
    kBool,  // integer: 0 or 1
    kInteger,
    kFloat,
    kString,       // name: the value
    kName,         // name
    kTuple,        // children: items
    kList,         // children: items
    kDict,         // children: key, value, key, value ...
    kAttribute,    // child 0 . name
    kItem,         // child 0 [ child 1 ]
    kSlice,        // children: object, begin, end, step; absent ones are nullptr
    kCall,         // child 0 ( other children, keywords )
    kFilter,       // child 0 | name ( other children, keywords )
    kTest,         // child 0 is name ( other children, keywords )
    kNot,          // child 0
    kNegate,       // child 0
    kPositive,     // child 0
    kBinary,       // child 0 name child 1; name is + - * / // %
    kConcat,       // children joined by ~
    kCompare,      // child 0 operators[0] child 1 operators[1] child 2 ...
    kAnd,          // child 0 and child 1
    kOr,           // child 0 or child 1
    kConditional,  // child 1 if child 0 else child 2; child 2 may be nullptr
  };

  Kind kind;
  int line = 0;
  int depth = 1;  // of the tree below
  std::string name{};
  int64_t integer = 0;
  double number = 0;
  std::vector<ExpressionPtr> children{};
  std::vector<std::pair<std::string, ExpressionPtr>> keywords{};
  std::vector<std::string> operators{};
};

struct Statement;
using Block = std::vector<Statement>;

// A macro's parameter; without a default it is undefined when it is not passed.
struct MacroParameter {
  std::string name;
  ExpressionPtr otherwise;
};

struct Statement {
  enum class Kind {
    kText,      // name: the text
    kOutput,    // {{ expression }}
    kIf,        // expression, body, otherwise
    kFor,       // for target in expression if condition: body; otherwise when it is empty
    kSet,       // target = expression
    kSetBlock,  // target = what body prints; filters in expression, on a kNone
    kMacro,     // name, parameters, body
    kBreak,
    kContinue,
    kGroup,  // body; {% generation %}
  };

  Kind kind;
  int line = 0;
  std::string name{};
  ExpressionPtr expression{};
  ExpressionPtr condition{};
  ExpressionPtr target{};  // kName, kTuple of names, or kAttribute of a name (a namespace's)
  std::vector<MacroParameter> parameters{};
  Block body{};
  Block otherwise{};
};

}  // namespace wideep::tokenizer
