// The keys of KV transfer, all derived from the one that an operator gives to prefill and decode
// ranks alike. Without one they come from a public constant: then tickets and messages are safe
// from mistakes, not from malice, and nothing may leave the host.
#pragma once

#include "api/kv_ticket.h"
#include "fabric/tls.h"

#include <cstddef>
#include <optional>
#include <span>

namespace wideep::kv {

class TransferKeys {
 public:
  explicit TransferKeys(const std::optional<fabric::PresharedKey>& key);

  // Of connections over TCP; without: plain.
  const std::optional<fabric::PresharedKey>& connection() const { return connection_; }

  const api::KvKey& ticket() const { return ticket_; }

  // Of the MAC of messages.
  std::span<const std::byte> message() const { return message_.bytes(); }

 private:
  std::optional<fabric::PresharedKey> connection_;
  api::KvKey ticket_;
  fabric::PresharedKey message_;
};

}  // namespace wideep::kv
