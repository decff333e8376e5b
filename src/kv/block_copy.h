// Walks a block in pieces that stay in the processor's cache between two uses: copied and summed,
// or summed and sent.
#pragma once

#include "base/function_ref.h"
#include "base/ids.h"
#include "base/result.h"
#include "kv/pool_image.h"

#include <algorithm>
#include <cstddef>
#include <span>

namespace wideep::kv {

inline constexpr size_t kPieceBytes = size_t{128} << 10;

// Calls `visit(group, offset, bytes)` for consecutive pieces of a block, group by group, until one
// fails.
inline Status for_each_piece(const PoolImage& image,
                             FunctionRef<Status(size_t group, size_t offset, size_t bytes)> visit) {
  for (size_t group = 0; group < image.layout().groups.size(); ++group) {
    const auto block_bytes = static_cast<size_t>(image.layout().groups[group].block_bytes());
    for (size_t offset = 0; offset < block_bytes; offset += kPieceBytes)
      WD_TRY(visit(group, offset, std::min(kPieceBytes, block_bytes - offset)));
  }
  return {};
}

}  // namespace wideep::kv
