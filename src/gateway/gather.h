// Asks every endpoint the same question: what a door answers for all that stand behind it.
#pragma once

#include "epp/endpoint.h"
#include "http/client.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace wideep::gateway {

struct GatherOptions {
  std::string target;  // path and query
  std::chrono::milliseconds timeout{2'000};
  int64_t body_bytes_max = 16 << 20;  // of one answer; a longer one counts as none
};

struct EndpointAnswer {
  const epp::Endpoint* endpoint = nullptr;  // of the snapshot that was asked
  std::string body;
};

// GETs `target` from every endpoint of `snapshot` at once. `on_done` is called once, on the loop of
// the client, with the answers that came with status 200, in the order of the endpoints. The client
// must outlive the calls.
void gather(http::Client& client,
            std::shared_ptr<const epp::Snapshot> snapshot,
            const GatherOptions& options,
            std::function<void(std::vector<EndpointAnswer>)> on_done);

// The /metrics texts of several endpoints as one: each family once, under its first help and type,
// with a label engine="<rank>" on samples that have none, so that no two are the same series.
// The rank is the endpoint's label epp::kRankLabel, else its name.
std::string merge_metrics(const std::vector<EndpointAnswer>& answers);

}  // namespace wideep::gateway
