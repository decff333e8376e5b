// What the machine gives at best, measured in the same rounds as what is compared with it.
#pragma once

#include "base/thread_pool.h"
#include "math/isa.h"
#include "rounds.h"

#include <cstddef>
#include <span>
#include <vector>

namespace wideep::bench {

// Adds the cases "read 1 thread", "read" (sums over windows of `memory`, GB/s), "bf16 peak 1
// thread", "bf16 peak", "int8 peak 1 thread" and "int8 peak" (operands in registers, GOPS). Pool
// and memory must outlive the cases.
void add_calibration(std::vector<Case>& cases,
                     math::Isa isa,
                     ThreadPool& pool,
                     std::span<const std::byte> memory);

}  // namespace wideep::bench
