// Scorers of EndpointPickerConfig, with upstream's names and exact formulas.
#pragma once

#include "epp/plugin.h"
#include "epp/prefix_index.h"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace wideep::epp {

// queue-scorer and running-requests-size-scorer: (max - v) / (max - min) over the candidates; all
// equal: 1.
class SpreadScorer final : public Scorer {
 public:
  explicit SpreadScorer(double EndpointMetrics::* value) : value_(value) {}

  std::vector<double> score(PickContext& context,
                            std::span<const Endpoint* const> candidates) override;

 private:
  double EndpointMetrics::* value_;
};

// kv-cache-utilization-scorer: 1 - usage.
class KvCacheScorer final : public Scorer {
 public:
  std::vector<double> score(PickContext& context,
                            std::span<const Endpoint* const> candidates) override;
};

// load-aware-scorer: an empty queue 0.5, else 0.5 (1 - min(q, threshold) / threshold).
class LoadAwareScorer final : public Scorer {
 public:
  explicit LoadAwareScorer(double threshold) : threshold_(threshold) {}

  std::vector<double> score(PickContext& context,
                            std::span<const Endpoint* const> candidates) override;

 private:
  double threshold_;
};

// active-request-scorer: requests in flight from here, c <= idle: 1; else (max - c) / max *
// max_busy_score.
class ActiveRequestScorer final : public Scorer {
 public:
  ActiveRequestScorer(int64_t idle_threshold, double max_busy_score)
      : idle_threshold_(idle_threshold), max_busy_score_(max_busy_score) {}

  std::vector<double> score(PickContext& context,
                            std::span<const Endpoint* const> candidates) override;

 private:
  int64_t idle_threshold_;
  double max_busy_score_;
};

// data-parallel-scorer (wideep's own): 1 / (1 + 4 waiting + running), vLLM's order of its ranks. Of
// the requests in flight from here max_num_seqs run and the rest wait: exact where this picker is
// the only door, and without a scrape.
class DataParallelScorer final : public Scorer {
 public:
  explicit DataParallelScorer(int64_t max_num_seqs) : max_num_seqs_(max_num_seqs) {}

  std::vector<double> score(PickContext& context,
                            std::span<const Endpoint* const> candidates) override;

 private:
  int64_t max_num_seqs_;
};

// prefix-cache-scorer: w min(1, matched tokens / scale)^2 + (1 - w) matched blocks / all blocks.
class PrefixCacheScorer final : public Scorer {
 public:
  // Shared with the producer's other users.
  PrefixCacheScorer(std::shared_ptr<PrefixIndex> index,
                    double length_weight,
                    double length_scale_tokens)
      : index_(std::move(index)),
        length_weight_(length_weight),
        length_scale_tokens_(length_scale_tokens) {}

  std::vector<double> score(PickContext& context,
                            std::span<const Endpoint* const> candidates) override;

 private:
  std::shared_ptr<PrefixIndex> index_;
  double length_weight_;
  double length_scale_tokens_;
};

// session-affinity-scorer: the endpoint named by the session token (base64 of its name) scores 1,
// others 0.
inline constexpr std::string_view kSessionTokenHeader = "x-session-token";
std::string session_token(const Endpoint& endpoint);

class SessionAffinityScorer final : public Scorer {
 public:
  std::vector<double> score(PickContext& context,
                            std::span<const Endpoint* const> candidates) override;
};

}  // namespace wideep::epp
