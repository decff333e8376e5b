// Where a decode rank's engine gets the KV of prompts that other ranks have computed. KvPuller is
// the real one; tests of the engine bring their own.
#pragma once

#include "api/kv_ticket.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace wideep::kv {

// A ticket whose MAC was right, and the text that proves it.
struct SealedTicket {
  api::KvTicket ticket;
  std::string text;
};

// Shared by the request, the pull and the heartbeats.
using TicketPtr = std::shared_ptr<const SealedTicket>;

enum class Transport : uint8_t { kSharedMemory, kTcp };
inline constexpr int kNumTransports = 2;
// "shm", "tcp".
std::string_view name(Transport transport);

// Copy the ticket's blocks from `first_block` on into `targets`, which belong to the pull until it
// has ended.
struct PullJob {
  SequenceId sequence{};
  TicketPtr ticket;
  uint32_t first_block = 0;
  std::vector<BlockId> targets;
};

struct PullOutcome {
  SequenceId sequence{};
  Status status;
  // Leading blocks that came and were right; all of them if `status` is ok.
  int64_t num_blocks = 0;
  int64_t num_bytes = 0;
  Transport transport = Transport::kTcp;
  Duration duration{};
};

// Thread: any; nothing blocks.
class KvSource {
 public:
  virtual ~KvSource() = default;
  // Keeps the ticket's lease alive until it is pulled or let go.
  virtual void hold(const TicketPtr& ticket) = 0;
  // The outcome comes through KvPort::pull_ended, once. The lease ends with it.
  virtual void pull(PullJob job) = 0;
  // A pull that has not ended does so soon.
  virtual void cancel(SequenceId sequence) = 0;
  // The ticket will not be pulled: its lease may end. A pull of it is cancelled first.
  virtual void let_go(const TicketPtr& ticket) = 0;
};

}  // namespace wideep::kv
