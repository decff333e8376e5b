// What /metrics tells of a rank besides its requests: the bytes it holds, its peers and how it
// reaches them, rows computed and sent.
//
// Ownership: borrows the host, which must outlive it. Thread: any.
#pragma once

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

}  // namespace wideep::cmd
