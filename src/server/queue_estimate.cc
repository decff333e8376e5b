#include "server/queue_estimate.h"

#include <algorithm>
#include <cmath>

namespace wideep::server {
namespace {

constexpr double kNewestShare = 0.1;  // of the last observation in the average

void average(double& mean, Duration newest) {
  const double seconds = std::chrono::duration<double>(newest).count();
  mean = mean == 0 ? seconds : mean + kNewestShare * (seconds - mean);
}

double ratio(int64_t count, int64_t at_a_time) {
  return static_cast<double>(count) / static_cast<double>(std::max<int64_t>(1, at_a_time));
}

}  // namespace

void QueueEstimate::on_step(Duration duration) {
  const std::scoped_lock lock(mutex_);
  average(step_seconds_, duration);
}

void QueueEstimate::on_request(Duration duration) {
  const std::scoped_lock lock(mutex_);
  average(request_seconds_, duration);
}

int QueueEstimate::retry_after_s(const engine::EngineStats& stats,
                                 const engine::EngineOptions& options) const {
  const std::scoped_lock lock(mutex_);
  const double prompts =
      step_seconds_ * ratio(stats.num_queued_tokens, options.max_num_batched_tokens);
  const double places = request_seconds_ * ratio(stats.num_waiting, options.max_num_seqs);
  const double seconds = std::ceil(std::max(prompts, places));
  return static_cast<int>(std::clamp(seconds, 1.0, static_cast<double>(kSecondsMax)));
}

}  // namespace wideep::server
