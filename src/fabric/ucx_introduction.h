// What a rank tells a rank of another node that shall write into its node's arenas by UCX: where
// its worker is and, for each rank of the node, where the arena lies and the key that opens it.
// Travels over the link between them, once; parsed before it is believed.
//
//   u32 bytes of the address, address, u32 number of arenas; each: u32 rank, u64 base, u32 bytes of
//   the key, key. Little-endian.
#pragma once

#include "base/result.h"
#include "fabric/fabric.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::fabric {

struct UcxIntroduction {
  struct Window {
    RankId rank{};
    uint64_t base = 0;           // where the arena lies in its door's memory
    std::vector<std::byte> key;  // packed, as UCX gave it
  };

  std::vector<std::byte> address;  // of the worker
  std::vector<Window> windows;
};

inline constexpr int64_t kUcxIntroductionBytesMax = 1 << 20;

std::vector<std::byte> encode(const UcxIntroduction& introduction);
// kInvalidArgument unless it has one window for each rank of `node`, and nothing else.
Result<UcxIntroduction> parse_ucx_introduction(std::span<const std::byte> bytes,
                                               std::span<const RankId> node);

}  // namespace wideep::fabric
