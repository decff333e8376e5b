#include "base/random.h"

#include "base/check.h"

#include <sys/random.h>

#include <array>
#include <utility>

namespace wideep {
namespace {

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t random_bits(uint64_t seed, uint64_t counter, uint64_t stream) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ULL;
  const uint64_t key = mix(seed + kGolden) ^ mix(stream * kGolden + 0xD1B54A32D192ED03ULL);
  return mix(mix(key + (counter + 1) * kGolden) + key);
}

float random_uniform(uint64_t seed, uint64_t counter, uint64_t stream) {
  return static_cast<float>(random_bits(seed, counter, stream) >> 40) * 0x1.0p-24F;
}

uint64_t random_device_bits() {
  // One system call for many. What has been given out is not kept. (A child that is forked and does
  // not become another program would draw the same.)
  thread_local std::array<uint64_t, 32> bits;
  thread_local size_t num_left = 0;
  if (num_left == 0) {
    WD_CHECK(getrandom(bits.data(), sizeof bits, 0) == sizeof bits);
    num_left = bits.size();
  }
  return std::exchange(bits[--num_left], 0);
}

}  // namespace wideep
