// modules: base api
// Any text: refused, or a ticket that seals to the same text. Half of the inputs get a valid MAC
// first, so that the parser behind it is reached.
#include "api/kv_ticket.h"
#include "base/check.h"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideep;
  const api::KvKey key{7, {std::byte{1}, std::byte{2}}};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(api::open_ticket(text, std::span(&key, 1)));
  std::vector<std::byte> body(reinterpret_cast<const std::byte*>(data),
                              reinterpret_cast<const std::byte*>(data) + size);
  const Digest mac = hmac_sha256(key.secret, body);
  body.insert(body.end(), mac.begin(), mac.end());
  const std::string sealed = to_base64url(body);
  if (const auto ticket = api::open_ticket(sealed, std::span(&key, 1))) {
    WD_CHECK(api::seal(*ticket, key) == sealed);
  }
  return 0;
}
