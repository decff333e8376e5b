// What /metrics and /expert_load tell of a rank besides its requests: the bytes it holds, its
// peers and how it reaches them, rows computed and sent.
//
// Ownership: borrows the host, which must outlive it. Thread: any.
#pragma once

#include "base/json.h"
#include "base/metrics.h"
#include "cmd/engine_host.h"

#include <memory>
#include <mutex>
#include <string>

namespace wideep::cmd {

class RankMetrics {
 public:
  // `labels`: of every series, model_name and engine.
  RankMetrics(EngineHost& host, const MetricLabels& labels);
  ~RankMetrics();

  // Appends the present figures in Prometheus' text format.
  void render(std::string& out);

 private:
  struct Series;

  EngineHost& host_;
  MetricsRegistry registry_;
  std::mutex mutex_;  // guards what counters grow from
  std::unique_ptr<Series> series_;
};

// GET /expert_load of one rank: rows and bytes that its experts have computed, by layer and expert,
// and that it has sent, by layer and rank (ep::ExpertLoad::to_json). A rank by itself is a group of
// one that sends all to itself. Null if the model has no experts.
Json expert_load(const EngineHost& host);

// The same of all ranks behind a door, from the documents of each, with what only all of them
// together show: per layer the rows of each rank and how even they are, and who sent how much to
// whom. Texts that are no such documents are left out.
Json merge_expert_load(const std::vector<std::string>& documents);

}  // namespace wideep::cmd
