#include "kv/transfer_keys.h"

namespace wideep::kv {

TransferKeys::TransferKeys(const std::optional<fabric::PresharedKey>& key) {
  const fabric::PresharedKey root =
      key.value_or(*fabric::PresharedKey::from_secret("wideep: no key was given"));
  if (key) connection_ = root.derive("kv connection");
  const fabric::PresharedKey ticket = root.derive("kv ticket");
  // The id lets a reader choose among keys while one is being replaced.
  ticket_ = {.id = std::to_integer<uint8_t>(root.derive("kv key id").bytes()[0]),
             .secret = {ticket.bytes().begin(), ticket.bytes().end()}};
  message_ = root.derive("kv message");
}

}  // namespace wideep::kv
