// Values of header fields: blanks around them, and lists with commas.
#pragma once

#include <string_view>

namespace wideep::http {

// Without spaces and tabs at its ends.
std::string_view trim(std::string_view text);
// The first element of a comma list, trimmed; what is behind it stays in `list`.
std::string_view take_element(std::string_view& list);
// Whether a comma list has that element, without case.
bool has_element(std::string_view list, std::string_view element);

}  // namespace wideep::http
