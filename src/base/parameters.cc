#include "base/parameters.h"

#include "base/options.h"

#include <fmt/format.h>

#include <algorithm>

namespace wideep {

std::string Parameters::path(std::string_view key) const {
  return owner_.empty() ? std::string(key) : fmt::format("{}.{}", owner_, key);
}

std::string Parameters::place(std::string_view key) const {
  std::string text;
  if (lines_ != nullptr) {
    if (const auto line = lines_->find(path(key)); line != lines_->end())
      text = fmt::format("line {}: ", line->second);
  }
  return owner_.empty() ? text : text + owner_ + ": ";
}

const Json* Parameters::any(std::string_view key) {
  asked_.emplace_back(key);
  const Json* value = values_ != nullptr ? values_->find(key) : nullptr;
  return value != nullptr && !value->is_null() ? value : nullptr;
}

void Parameters::complain(std::string_view key, std::string_view expected) {
  if (problem_.empty()) problem_ = fmt::format("{}{} must be {}", place(key), key, expected);
}

int64_t Parameters::integer(std::string_view key, int64_t fallback, int64_t min) {
  const Json* value = any(key);
  if (value == nullptr) return fallback;
  const auto integer = value->as_int();
  if (!integer || *integer < min) complain(key, fmt::format("an integer >= {}", min));
  return integer.value_or(fallback);
}

double Parameters::number(std::string_view key, double fallback, double min) {
  const Json* value = any(key);
  if (value == nullptr) return fallback;
  const auto number = value->as_double();
  if (!number || *number < min) complain(key, fmt::format("a number >= {}", min));
  return number.value_or(fallback);
}

bool Parameters::boolean(std::string_view key, bool fallback) {
  const Json* value = any(key);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) complain(key, "true or false");
  return value->as_bool().value_or(fallback);
}

std::string Parameters::text(std::string_view key, std::string fallback) {
  const Json* value = any(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    complain(key, "text");
    return fallback;
  }
  return *value->as_string();
}

std::string Parameters::choice(std::string_view key,
                               std::string fallback,
                               const std::vector<std::string>& choices) {
  std::string value = text(key, std::move(fallback));
  if (std::ranges::find(choices, value) == choices.end())
    complain(key, fmt::format("one of {}", fmt::join(choices, ", ")));
  return value;
}

Status Parameters::finish() {
  if (!problem_.empty()) return invalid_argument("{}", problem_);
  if (values_ == nullptr || values_->is_null()) return {};
  if (!values_->is_object())
    return invalid_argument("{}: a map is expected", owner_.empty() ? "the document" : owner_);
  for (const auto& [key, value] : *values_->as_object()) {
    if (std::ranges::find(asked_, key) != asked_.end()) continue;
    const auto nearest = nearest_word(key, asked_);
    return invalid_argument("{}unknown parameter '{}'{}", place(key), key,
                            nearest ? fmt::format("; did you mean '{}'?", *nearest) : "");
  }
  return {};
}

}  // namespace wideep
