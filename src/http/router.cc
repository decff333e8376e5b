#include "http/router.h"

#include <algorithm>
#include <utility>

namespace wideep::http {

void Router::add(Route route) {
  const bool is_prefix = route.pattern.ends_with('*');
  const std::string key = route.pattern.substr(0, route.pattern.size() - (is_prefix ? 1 : 0));
  std::vector<Route>& routes = (is_prefix ? prefixes_ : exact_)[key];
  std::erase_if(routes, [&](const Route& old) { return old.method == route.method; });
  routes.push_back(std::move(route));
}

Router::Match Router::find(std::string_view method, std::string_view path) const {
  const std::vector<Route>* routes = nullptr;
  Match match;
  if (const auto it = exact_.find(path); it != exact_.end()) {
    routes = &it->second;
  } else {
    for (const auto& [prefix, candidates] : prefixes_) {  // ascending: the longest match is last
      if (!path.starts_with(prefix)) continue;
      routes = &candidates;
      match.rest = path.substr(prefix.size());
    }
  }
  if (routes == nullptr) return match;
  match.route = choose(*routes, method);
  if (match.route != nullptr) return match;
  for (const Route& route : *routes) {
    if (!match.allow.empty()) match.allow += ", ";
    match.allow += route.method == "GET" ? "GET, HEAD" : route.method;
  }
  return match;
}

const Route* Router::choose(const std::vector<Route>& routes, std::string_view method) {
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  const auto it = std::ranges::find_if(
      routes, [&](const Route& route) { return route.method == wanted || route.method == "*"; });
  return it == routes.end() ? nullptr : &*it;
}

}  // namespace wideep::http
