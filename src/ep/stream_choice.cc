#include "ep/stream_choice.h"

#include "base/check.h"

#include <algorithm>
#include <chrono>

namespace wideep::ep {
namespace {

// What is streamed has to come back from memory, which trials, that only write, do not see.
// Measured on a machine of both kinds: plain copies take 0.6 to 2.1 times as long where the cores
// share a cache (and all in all streaming loses there), 4 to 6 times where they do not.
constexpr double kWayBack = 2.5;
constexpr int64_t kTrialTurn = 4;  // of kTryEvery; by then memory has been touched

}  // namespace

double StreamChoice::Measured::best() const {
  return *std::min_element(ns_per_byte.begin(), ns_per_byte.begin() + std::min(count, kPieces));
}

void StreamChoice::open(int64_t bytes, bool fits) {
  const auto& [plain, streamed] = measured_;
  streams_ =
      !fits || plain.count == 0 || streamed.count == 0 || kWayBack * streamed.best() < plain.best();
  is_trial_ = fits && bytes >= kBytesMin && num_exchanges_++ % kTryEvery == kTrialTurn;
}

void StreamChoice::record(bool is_streamed, int64_t bytes, Duration spent) {
  WD_CHECK(is_trial_ && bytes > 0);
  Measured& way = measured_[is_streamed ? 1 : 0];
  way.ns_per_byte[static_cast<size_t>(way.count++ % kPieces)] =
      std::chrono::duration<double, std::nano>(spent).count() / static_cast<double>(bytes);
}

}  // namespace wideep::ep
