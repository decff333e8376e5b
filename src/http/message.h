// Requests and responses as plain data. Header names compare without case and keep the case in
// which they came.
#pragma once

#include "base/function_ref.h"

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::http {

bool equal_ignoring_case(std::string_view a, std::string_view b);

struct Header {
  std::string name;
  std::string value;
};

class Headers {
 public:
  Headers() = default;

  Headers(std::initializer_list<Header> fields) : fields_(fields) {}

  // The value of the first field of that name, or nullptr.
  const std::string* find(std::string_view name) const;
  // Like find, "" if there is none.
  std::string_view get(std::string_view name) const;

  void add(std::string_view name, std::string_view value);
  // Replaces all fields of that name by one.
  void set(std::string_view name, std::string_view value);
  void erase(std::string_view name);
  // Removes every field that `predicate` says yes to; the others keep their order.
  void erase_if(FunctionRef<bool(const Header&)> predicate);

  size_t size() const { return fields_.size(); }

  auto begin() const { return fields_.begin(); }

  auto end() const { return fields_.end(); }

 private:
  std::vector<Header> fields_;
};

struct Request {
  std::string method;
  std::string path;   // normalised: see http/target.h; what guards and routes look at
  std::string query;  // as sent, without '?'
  std::string rest;   // what a route's '*' matched
  Headers headers;
  std::string body;
  std::string peer;  // "10.0.0.7:51234" or "unix"
  // The body's share of the server's memory (ServerLimits::all_bodies_bytes_max), given back when
  // the last copy of the request goes.
  std::shared_ptr<const void> body_charge;
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;  // content-length is added when it is sent
};

// The response for an error that http itself found: what its body looks like is the user's choice.
using ErrorRenderer = std::function<Response(int status, std::string_view message)>;

// Appends "name: value\r\n". Line ends inside the value become spaces: it cannot end its line.
void append_header_field(std::string& out, std::string_view name, std::string_view value);

// Whether a header says how a message is framed or what becomes of its connection: such headers are
// for one hop, and made where a message is sent.
bool is_framing_header(std::string_view name);

// "Not Found" for 404; "Status" for what has no name here.
std::string_view reason_phrase(int status);

// The media type of a content-type value, without parameters: "application/json".
std::string_view media_type(std::string_view content_type);

}  // namespace wideep::http
