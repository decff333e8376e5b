#include "epp/scorers.h"

#include <algorithm>
#include <string>

namespace wideep::epp {

std::vector<double> SpreadScorer::score(PickContext& /*context*/,
                                        std::span<const Endpoint* const> candidates) {
  double low = candidates.empty() ? 0 : candidates.front()->metrics.*value_;
  double high = low;
  for (const Endpoint* endpoint : candidates) {
    low = std::min(low, endpoint->metrics.*value_);
    high = std::max(high, endpoint->metrics.*value_);
  }
  std::vector<double> scores;
  scores.reserve(candidates.size());
  for (const Endpoint* endpoint : candidates) {
    scores.push_back(high == low ? 1.0 : (high - endpoint->metrics.*value_) / (high - low));
  }
  return scores;
}

std::vector<double> KvCacheScorer::score(PickContext& /*context*/,
                                         std::span<const Endpoint* const> candidates) {
  std::vector<double> scores;
  scores.reserve(candidates.size());
  for (const Endpoint* endpoint : candidates)
    scores.push_back(1 - endpoint->metrics.kv_cache_usage);
  return scores;
}

std::vector<double> LoadAwareScorer::score(PickContext& /*context*/,
                                           std::span<const Endpoint* const> candidates) {
  std::vector<double> scores;
  scores.reserve(candidates.size());
  for (const Endpoint* endpoint : candidates) {
    scores.push_back(0.5 * (1 - std::min(endpoint->metrics.waiting, threshold_) / threshold_));
  }
  return scores;
}

std::vector<double> ActiveRequestScorer::score(PickContext& /*context*/,
                                               std::span<const Endpoint* const> candidates) {
  std::vector<int64_t> counts;
  counts.reserve(candidates.size());
  for (const Endpoint* endpoint : candidates) {
    counts.push_back(endpoint->load->active_requests.load(std::memory_order_relaxed));
  }
  const int64_t busiest = counts.empty() ? 0 : std::ranges::max(counts);
  std::vector<double> scores;
  scores.reserve(counts.size());
  for (const int64_t count : counts) {
    const bool is_idle = count <= idle_threshold_;
    scores.push_back(is_idle ? 1.0
                             : static_cast<double>(busiest - count) / static_cast<double>(busiest) *
                                   max_busy_score_);
  }
  return scores;
}

std::vector<double> DataParallelScorer::score(PickContext& /*context*/,
                                              std::span<const Endpoint* const> candidates) {
  constexpr int64_t kWaitingWeight = 4;
  std::vector<double> scores;
  for (const Endpoint* endpoint : candidates) {
    const int64_t active = endpoint->load->active_requests.load(std::memory_order_relaxed);
    const int64_t running = std::min(active, max_num_seqs_);
    const int64_t weight = kWaitingWeight * (active - running) + running;
    scores.push_back(1 / static_cast<double>(1 + weight));
  }
  return scores;
}

std::vector<double> PrefixCacheScorer::score(PickContext& context,
                                             std::span<const Endpoint* const> candidates) {
  const PickContext::PrefixMatch& match = index_->match(context);
  const auto total = static_cast<double>(match.hashes.size());
  std::vector<double> scores;
  scores.reserve(candidates.size());
  for (const Endpoint* endpoint : candidates) {
    const auto blocks = static_cast<double>(match.blocks_of(endpoint->id));
    if (blocks == 0) {
      scores.push_back(0);
      continue;
    }
    const double length =
        std::min(1.0, blocks * static_cast<double>(match.block_tokens) / length_scale_tokens_);
    scores.push_back(length_weight_ * length * length + (1 - length_weight_) * blocks / total);
  }
  return scores;
}

std::string session_token(const Endpoint& endpoint) {
  static constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::string& name = endpoint.name;
  std::string out;
  for (size_t i = 0; i < name.size(); i += 3) {
    const size_t count = std::min<size_t>(3, name.size() - i);
    uint32_t word = 0;
    for (size_t j = 0; j < 3; ++j)
      word = word << 8 | (j < count ? static_cast<unsigned char>(name[i + j]) : 0U);
    for (size_t j = 0; j < 4; ++j)
      out += j <= count ? kAlphabet[word >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

std::vector<double> SessionAffinityScorer::score(PickContext& context,
                                                 std::span<const Endpoint* const> candidates) {
  const std::string* token = context.request.header_value(kSessionTokenHeader);
  std::vector<double> scores(candidates.size(), 0.0);
  if (token == nullptr) return scores;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (session_token(*candidates[i]) == *token) scores[i] = 1;
  }
  return scores;
}

}  // namespace wideep::epp
