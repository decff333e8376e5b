// What KV transfer needs of an engine, and the engine's side of it.
#pragma once

#include "kv/block_pool.h"
#include "kv/identity.h"
#include "kv/kv_source.h"
#include "kv/lease_table.h"

#include <string>

namespace wideep::kv {

class KvPort {
 public:
  virtual ~KvPort() = default;
  virtual const BlockPool& kv_pool() const = 0;
  // See identity_text.
  virtual std::string kv_identity() const = 0;
  virtual LeaseTable& leases() = 0;
  // Before the first request with a ticket; null: no more pulls (what is under way must have
  // ended).
  virtual void set_kv_source(KvSource* source) = 0;
  // Any thread.
  virtual void pull_ended(PullOutcome outcome) = 0;
};

}  // namespace wideep::kv
