// modules: base api kv
// Any bytes as a KV message: refused, or a message that encodes to the same bytes. The first byte
// says whether the rest is a payload that gets a valid header and MAC, so that the parsers behind
// them are reached.
#include "base/check.h"
#include "kv/wire.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideep;
  const std::vector<std::byte> key{std::byte{1}, std::byte{2}};
  const auto bytes = std::as_bytes(std::span(data, size));
  static_cast<void>(kv::parse_message(bytes, key));
  if (size == 0) return 0;
  // A frame of our own, with its kind, payload and MAC replaced.
  std::vector<std::byte> frame = kv::encode(kv::PullAnswer{}, key);
  frame.resize(kv::kHeaderBytes);
  const auto payload = bytes.subspan(1);
  const uint16_t kind = data[0] % std::variant_size_v<kv::Message>;
  const auto payload_bytes = static_cast<uint32_t>(payload.size());
  std::ranges::copy(std::as_bytes(std::span(&kind, 1)), frame.begin() + 6);
  std::ranges::copy(std::as_bytes(std::span(&payload_bytes, 1)), frame.begin() + 8);
  frame.insert(frame.end(), payload.begin(), payload.end());
  const Digest mac = hmac_sha256(key, frame);
  frame.insert(frame.end(), mac.begin(), mac.end());
  if (const auto message = kv::parse_message(frame, key))
    WD_CHECK(kv::encode(*message, key) == frame);
  return 0;
}
