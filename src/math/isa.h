// The instruction-set levels that the kernels are written for. The level is part of NumericConfig:
// two ranks of one group must use the same, because sums are taken in a different order on each.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace wideep::math {

// In ascending order; a machine that has one has all below it.
enum class Isa {
  kScalar,      // plain C++: the reference, any x86-64
  kAvx2,        // AVX2 + FMA + F16C + BMI2
  kAvx512,      // AVX-512 F/BW/DQ/VL + VNNI
  kAvx512Bf16,  // + BF16 and VBMI
  kAmx,         // + AMX-BF16 and AMX-INT8
};

std::string_view name(Isa isa);  // "scalar", "avx2", "avx512", "avx512bf16", "amx"
std::optional<Isa> parse_isa(std::string_view text);

// The highest level of this machine (CPUID and what the kernel saves).
Isa detect_isa();
bool is_supported(Isa isa);
std::vector<Isa> supported_isas();

}  // namespace wideep::math
