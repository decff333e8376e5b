#include "ep/stream_choice.h"

#include <algorithm>
#include <chrono>

namespace wideep::ep {
namespace {

constexpr double kNewest = 0.5;    // weight of the last measurement
constexpr double kOutlierMax = 4;  // times what was known: somebody else had the processor

}  // namespace

void StreamChoice::open(bool fits) {
  is_measured_ = fits;
  streams_ = true;
  if (!fits) return;
  const bool is_trial = num_measured_ % kTryEvery == kTryEvery - 1;
  streams_ = streams_is_better() != is_trial;
}

// What has not been measured yet is tried first.
bool StreamChoice::streams_is_better() const {
  const auto& [plain, streamed] = measured_;
  if (streamed.count == 0) return true;
  return plain.count > 0 && streamed.ns_per_byte < plain.ns_per_byte;
}

void StreamChoice::record(int64_t bytes, Duration spent) {
  if (!is_measured_ || bytes < kBytesMin) return;
  ++num_measured_;
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
