#include "ep/stream_choice.h"

#include <algorithm>
#include <chrono>

namespace wideep::ep {
namespace {

constexpr int64_t kFirstTrial = 4;  // of kTryEvery; by then memory has been touched

}  // namespace

double StreamChoice::Measured::best() const {
  return *std::min_element(ns_per_byte.begin(), ns_per_byte.begin() + std::min(count, kTrials));
}

void StreamChoice::open(int64_t bytes, bool fits) {
  const auto& [plain, streamed] = measured_;
  is_trial_ = false;
  streams_ = !fits || plain.count == 0 || streamed.best() < plain.best();
  if (!fits || bytes < kBytesMin) return;
  const int64_t turn = num_exchanges_++ % kTryEvery;
  is_trial_ = turn == kFirstTrial || turn == kFirstTrial + 1;
  if (is_trial_) streams_ = turn == kFirstTrial;
}

void StreamChoice::record(int64_t bytes, Duration spent) {
  if (!is_trial_ || bytes == 0) return;
  Measured& way = measured_[streams_ ? 1 : 0];
  way.ns_per_byte[static_cast<size_t>(way.count++ % kTrials)] =
      std::chrono::duration<double, std::nano>(spent).count() / static_cast<double>(bytes);
}

}  // namespace wideep::ep
