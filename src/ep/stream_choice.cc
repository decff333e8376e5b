#include "ep/stream_choice.h"

#include <algorithm>
#include <chrono>

namespace wideep::ep {
namespace {

constexpr double kNewest = 0.5;     // weight of the last measurement
constexpr double kOutlierMax = 4;   // times what was known: somebody else had the processor
constexpr int64_t kFirstTrial = 4;  // of kTryEvery; by then memory has been touched

}  // namespace

void StreamChoice::open(int64_t bytes, bool fits) {
  const auto& [plain, streamed] = measured_;
  is_trial_ = false;
  streams_ = !fits || plain.count == 0 || streamed.ns_per_byte < plain.ns_per_byte;
  if (!fits || bytes < kBytesMin) return;
  const int64_t turn = num_exchanges_++ % kTryEvery;
  is_trial_ = turn == kFirstTrial || turn == kFirstTrial + 1;
  if (is_trial_) streams_ = turn == kFirstTrial;
}

void StreamChoice::record(int64_t bytes, Duration spent) {
  if (!is_trial_ || bytes == 0) return;
  const double sample =
      std::chrono::duration<double, std::nano>(spent).count() / static_cast<double>(bytes);
  Measured& way = measured_[streams_ ? 1 : 0];
  if (way.count++ == 0) {
    way.ns_per_byte = sample;
    return;
  }
  way.ns_per_byte += kNewest * (std::min(sample, kOutlierMax * way.ns_per_byte) - way.ns_per_byte);
}

}  // namespace wideep::ep
