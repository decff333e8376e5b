// From method and path to a handler. Paths are exact; one that ends in '*' matches all that begin
// so.
#pragma once

#include "http/message.h"
#include "http/responder.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::http {

// Called on the server's thread, and must not block it: hand long work to another thread, with the
// responder. The request is the handler's to keep.
using Handler = std::function<void(Request request, Responder responder)>;

struct RouteOptions {
  // Not empty: a request with a body must have this media type, else 415.
  std::string media_type;
  // Not zero: a lower limit than the server's.
  int64_t body_bytes_max = 0;
};

struct Route {
  std::string method;   // "*" takes every method
  std::string pattern;  // "/v1/models" or "/v1/models/*"
  Handler handler;
  RouteOptions options;
};

class Router {
 public:
  // The last of two equal routes wins.
  void add(Route route);

  struct Match {
    const Route* route = nullptr;  // valid until the next add()
    std::string_view rest;         // of `path`: what '*' matched
    std::string allow;             // without a route: the methods that the path has; "" for a 404
  };

  // Exact patterns come before those with '*', long ones before short ones. GET also answers HEAD.
  Match find(std::string_view method, std::string_view path) const;

 private:
  static const Route* choose(const std::vector<Route>& routes, std::string_view method);

  std::map<std::string, std::vector<Route>, std::less<>> exact_;
  std::map<std::string, std::vector<Route>, std::less<>> prefixes_;  // without the '*'
};

}  // namespace wideep::http
