// The most a core does at each ISA level with operands in registers: what kernels are measured by.
#pragma once

#include "math/isa.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace wideep::bench {

// One burst of about a tenth of a millisecond; returns the operations done (a multiply-add is two).
struct Peaks {
  double (*f32)() = nullptr;
  double (*bf16)() = nullptr;  // the instruction that bf16 rows use at this level
  double (*int8)() = nullptr;
  // Reads all of it with the level's widest loads.
  void (*read)(std::span<const std::byte> memory) = nullptr;
};

Peaks peaks(math::Isa isa);

Peaks avx2_peaks();
Peaks avx512_peaks();
Peaks avx512bf16_peaks();
Peaks amx_peaks();

}  // namespace wideep::bench
