// The library chooses its code by the processor at run time: four times what our baseline gives.
#include "base/hash.h"

#define XXH_STATIC_LINKING_ONLY  // for the size of the state
#include <xxhash.h>
// After it, which it changes.
#include <xxh_x86dispatch.h>

namespace wideep {

struct Checksum::State {
  XXH3_state_t state;
};

Checksum::Checksum() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->state);
}

Checksum::~Checksum() = default;

void Checksum::add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->state, bytes.data(), bytes.size());
}

uint64_t Checksum::take() {
  const uint64_t digest = XXH3_64bits_digest(&state_->state);
  XXH3_64bits_reset(&state_->state);
  return digest;
}

}  // namespace wideep
