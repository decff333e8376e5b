#include "math/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <iterator>

namespace wideep::math {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"scalar", "avx2", "avx512", "avx512bf16",
                                                    "amx"};
constexpr std::array kLevels = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16,
                                Isa::kAmx};
static_assert(std::size(kNames) == std::size(kLevels));

// The kernel gives AMX tile data only to a process that asks for it.
bool request_amx_tiles() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXtileData) == 0;
}

bool has_amx() {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr uint32_t kBf16 = 1U << 22;
  constexpr uint32_t kTile = 1U << 24;
  constexpr uint32_t kInt8 = 1U << 25;
  constexpr uint32_t kAll = kBf16 | kTile | kInt8;
  return (edx & kAll) == kAll && request_amx_tiles();
}

Isa detect() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c") || !__builtin_cpu_supports("bmi2")) {
    return Isa::kScalar;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512vnni")) {
    return Isa::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vbmi")) {
    return Isa::kAvx512;
  }
  return has_amx() ? Isa::kAmx : Isa::kAvx512Bf16;
}

}  // namespace

std::string_view name(Isa isa) {
  return kNames[static_cast<size_t>(isa)];
}

std::optional<Isa> parse_isa(std::string_view text) {
  for (const Isa isa : kLevels) {
    if (name(isa) == text) return isa;
  }
  return std::nullopt;
}

Isa detect_isa() {
  static const Isa detected = detect();
  return detected;
}

bool is_supported(Isa isa) {
  return isa <= detect_isa();
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> levels;
  for (const Isa isa : kLevels) {
    if (is_supported(isa)) levels.push_back(isa);
  }
  return levels;
}

}  // namespace wideep::math
