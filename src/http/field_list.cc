#include "http/field_list.h"

#include "http/message.h"

#include <algorithm>

namespace wideep::http {

std::string_view trim(std::string_view text) {
  const auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_blank(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back()))
    text.remove_suffix(1);
  return text;
}

std::string_view take_element(std::string_view& list) {
  const size_t comma = std::min(list.find(','), list.size());
  const std::string_view element = trim(list.substr(0, comma));
  list.remove_prefix(std::min(comma + 1, list.size()));
  return element;
}

bool has_element(std::string_view list, std::string_view element) {
  while (!list.empty())
    if (equal_ignoring_case(take_element(list), element)) return true;
  return false;
}

}  // namespace wideep::http
