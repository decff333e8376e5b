#include "base/byte_codec.h"

#include "base/check.h"

#include <algorithm>

namespace wideep {

void ByteWriter::check_fits(size_t size, uint64_t max) {
  WD_CHECK(size <= max);
}

void ByteReader::bytes(std::span<std::byte> out) {
  const auto from = take(out.size());
  if (from.empty())
    std::ranges::fill(out, std::byte{0});
  else
    std::ranges::copy(from, out.begin());
}

std::span<const std::byte> ByteReader::take(size_t count) {
  if (failed_ || count > in_.size()) {
    failed_ = true;
    return {};
  }
  const auto taken = in_.first(count);
  in_ = in_.subspan(count);
  return taken;
}

}  // namespace wideep
