// The way a request took through a deployment, from what its endpoints say before and after it.
//
// Works against a gateway with --expose-routes: GET /endpoints lists the endpoints, each has
// /metrics, and answers name the two that were used. Nothing here is guessed: what no endpoint says
// is left out.
#pragma once

#include "base/result.h"
#include "cmd/completion_call.h"
#include "http/client.h"

#include <map>
#include <string>
#include <vector>

namespace wideep::cmd {

class RouteReport {
 public:
  // Looks at every endpoint, before the request. Not on the client's loop.
  static Result<RouteReport> begin(http::Client& client,
                                   const ServerUrl& gateway,
                                   const std::string& api_key);

  // Looks again, after it; lines without ends.
  std::vector<std::string> end(const CompletionResult& result);

 private:
  // Counters of one endpoint.
  struct Look {
    double prompt_tokens = 0;
    double generated_tokens = 0;
    double kv_bytes = 0;  // pulled from elsewhere
    double expert_rows = 0;
    double num_experts = 0;  // that live there
  };

  struct Endpoint {
    std::string name;  // "prefill-0"
    std::string role;
    net::Address address;
    Look before;
  };

  explicit RouteReport(http::Client& client) : client_(&client) {}

  // The key goes to the gateway only, never to the endpoints that it names.
  Status list_endpoints(const ServerUrl& gateway, const std::string& api_key);
  Result<Look> look(const net::Address& address) const;
  Result<std::string> get(http::Call call) const;
  // Differences by name. Waits, within a deadline, until the decode rank has counted the answer.
  std::map<std::string, Look> differences(const CompletionResult& result) const;
  std::string experts_line(const std::map<std::string, Look>& moved, const std::string& role) const;

  http::Client* client_;
  std::vector<Endpoint> endpoints_;
};

}  // namespace wideep::cmd
