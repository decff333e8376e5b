#include "tokenizer/template_arithmetic.h"

#include "base/check.h"

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace wideep::tokenizer {
namespace {

int64_t floor_divide(int64_t a, int64_t b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

Result<Value> on_integers(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else {
    if (b == 0) return invalid_argument("division by zero");
    if (op == "/") return Value::number(static_cast<double>(a) / static_cast<double>(b));
    overflow = a == INT64_MIN && b == -1;
    if (!overflow) result = op == "//" ? floor_divide(a, b) : a - floor_divide(a, b) * b;
  }
  if (overflow) return invalid_argument("{} {} {} does not fit 64 bits", a, op, b);
  return Value::integer(result);
}

// Python's divmod: the remainder has the divisor's sign, also when it is zero.
struct DivMod {
  double quotient;
  double remainder;
};

DivMod floor_divide(double a, double b) {
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder == 0) {
    remainder = std::copysign(0.0, b);
  } else if ((remainder < 0) != (b < 0)) {
    remainder += b;
    quotient -= 1;
  }
  if (quotient == 0) return {std::copysign(0.0, a / b), remainder};
  const double floor = std::floor(quotient);
  return {quotient - floor > 0.5 ? floor + 1 : floor, remainder};
}

Result<Value> on_doubles(std::string_view op, double a, double b) {
  if (op == "+") return Value::number(a + b);
  if (op == "-") return Value::number(a - b);
  if (op == "*") return Value::number(a * b);
  if (b == 0) return invalid_argument("division by zero");
  if (op == "/") return Value::number(a / b);
  const DivMod result = floor_divide(a, b);
  return Value::number(op == "//" ? result.quotient : result.remainder);
}

Result<Value> add_lists(const List& a, const List& b, Budget& budget) {
  WD_TRY(budget.spend_bytes(sizeof(Value) * (a.items.size() + b.items.size())));
  std::vector<Value> items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return a.is_tuple ? Value::tuple(std::move(items), budget)
                    : Value::list(std::move(items), budget);
}

// 'ab' * 3, [x] * 3
Result<Value> repeat(const Value& sequence, int64_t count, Budget& budget) {
  Text text;
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) {
    WD_TRY(budget.spend_steps());
    if (const Text* part = sequence.as_text()) {
      WD_TRY(budget.spend_bytes(part->size()));
      text.append(*part);
    } else {
      const std::vector<Value>& part_items = sequence.as_list()->items;
      WD_TRY(budget.spend_bytes(sizeof(Value) * part_items.size()));
      items.insert(items.end(), part_items.begin(), part_items.end());
    }
  }
  if (sequence.as_text() != nullptr) return Value::text(std::move(text));
  return sequence.as_list()->is_tuple ? Value::tuple(std::move(items), budget)
                                      : Value::list(std::move(items), budget);
}

bool is_sequence(const Value& value) {
  return value.as_text() != nullptr || value.as_list() != nullptr;
}

}  // namespace

Result<Value> apply_operator(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  for (const Value* operand : {&a, &b}) {
    if (const Undefined* undefined = operand->as_undefined()) {
      return invalid_argument("'{}' is undefined", undefined->name.substr(0, 100));
    }
  }
  if (a.is_number() && b.is_number()) {
    const auto left = a.as_integer();
    const auto right = b.as_integer();
    return left && right ? on_integers(op, *left, *right)
                         : on_doubles(op, *a.as_double(), *b.as_double());
  }
  if (op == "+" && a.as_text() != nullptr && b.as_text() != nullptr) {
    WD_TRY(budget.spend_bytes(a.as_text()->size() + b.as_text()->size()));
    Text sum = *a.as_text();
    sum.append(*b.as_text());
    return Value::text(std::move(sum));
  }
  const List* left = a.as_list();
  const List* right = b.as_list();
  if (op == "+" && left != nullptr && right != nullptr && left->is_tuple == right->is_tuple) {
    return add_lists(*left, *right, budget);
  }
  if (op == "*" && is_sequence(a) && b.as_integer()) return repeat(a, *b.as_integer(), budget);
  if (op == "*" && is_sequence(b) && a.as_integer()) return repeat(b, *a.as_integer(), budget);
  return invalid_argument("'{}' is not defined between {} and {}", op, a.kind_name(),
                          b.kind_name());
}

}  // namespace wideep::tokenizer
