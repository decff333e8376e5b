// Random numbers as a pure function of (seed, position): counter-based, so that a request resumed
// on another rank draws the same numbers. SplitMix64's finaliser over two mixed words.
#pragma once

#include <cstdint>

namespace wideep {

// 64 well-mixed bits for this seed, counter and stream.
uint64_t random_bits(uint64_t seed, uint64_t counter, uint64_t stream = 0);

// Uniform in [0, 1), 24 bits: every value is exact in a float.
float random_uniform(uint64_t seed, uint64_t counter, uint64_t stream = 0);

// Bits that nobody can guess, from the kernel: seeds, keys, ids.
uint64_t random_device_bits();

// A sequence of random_bits, for tests, simulations and pickers. Not for sampling tokens.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}

  uint64_t bits() { return random_bits(seed_, counter_++); }

  // Uniform in [0, bound); bound > 0.
  uint64_t below(uint64_t bound) { return bits() % bound; }

  double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }

  // Uniform in [-1, 1).
  float symmetric() { return static_cast<float>(uniform() * 2.0 - 1.0); }

 private:
  uint64_t seed_;
  uint64_t counter_ = 0;
};

}  // namespace wideep
