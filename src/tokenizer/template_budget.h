// What one rendering may cost. Templates come with model files and with requests, so each of their
// operations is paid for, and a template that asks for too much fails instead of filling the
// machine.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>

namespace wideep::tokenizer {

struct RenderLimits {
  int64_t steps_max = 10'000'000;       // operations; 64 bytes of copied text are one
  int64_t bytes_max = 512 << 20;        // of all values ever made
  int64_t output_bytes_max = 16 << 20;  // of the rendered prompt
  int depth_max = 400;                  // of nested evaluation, macros included
  int value_depth_max = 100;            // of lists in lists
  int64_t range_max = 100'000;          // items of range()
};

class Budget {
 public:
  explicit Budget(const RenderLimits& limits) : limits_(limits) {}

  const RenderLimits& limits() const { return limits_; }

  // kExhausted when the rendering has made more than steps_max steps.
  Status spend_steps(int64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.steps_max) {
      return error(ErrorCode::kExhausted, "more than {} steps", limits_.steps_max);
    }
    return {};
  }

  // kExhausted when it has made more than bytes_max bytes. Call it before making them.
  Status spend_bytes(size_t count) {
    bytes_ += static_cast<int64_t>(count);
    if (bytes_ > limits_.bytes_max) {
      return error(ErrorCode::kExhausted, "more than {} bytes of values", limits_.bytes_max);
    }
    return spend_steps(1 + static_cast<int64_t>(count / 64));
  }

 private:
  RenderLimits limits_;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace wideep::tokenizer
