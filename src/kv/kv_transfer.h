// KV transfer of one rank: its server if it produces, its puller if it consumes, and what requests
// and answers say about it (kv_transfer_params).
//
//   prefill  Engine ends a request ─▶ lease ─▶ params(): a sealed ticket in the answer
//   decode   read(): the ticket, its MAC checked ─▶ Engine ─▶ KvPuller ─▶ prefill's KvServer
//
// Ownership: borrows the port (the engine), which must outlive it. Thread: any.
#pragma once

#include "api/kv_ticket.h"
#include "base/json.h"
#include "base/metrics.h"
#include "base/result.h"
#include "kv/kv_port.h"
#include "kv/kv_puller.h"
#include "kv/kv_server.h"
#include "kv/transfer_keys.h"
#include "kv/transfer_metrics.h"
#include "net/address.h"

#include <memory>
#include <optional>
#include <string>

namespace wideep::kv {

struct KvTransferOptions {
  bool produces = false;  // requests may leave their KV here, under a lease
  bool consumes = false;  // requests may bring a ticket
  // A ticket that cannot be used is as good as none: the prompt is computed here.
  bool recompute_on_failure = false;
  std::string engine_id;        // a new random part is added at every start
  net::Address listen;          // of a producer
  std::string advertised_host;  // that tickets name; "": the one it listens at
  std::optional<fabric::PresharedKey> key;
  bool insecure = false;  // without a key beyond this host
  KvServerOptions server;
  KvPullerOptions puller;
  MetricLabels labels;
};

// What a request wants.
struct KvWish {
  bool keep = false;  // of the prompt's KV when the request ends
  TicketPtr ticket;   // to pull the prompt's KV with
};

class KvTransfer {
  struct Private {};

 public:
  // kInvalidArgument: an address beyond this host without a key; kUnavailable: it is taken.
  static Result<std::unique_ptr<KvTransfer>> create(KvPort& port, KvTransferOptions options);
  ~KvTransfer();

  // kv_transfer_params of a request. kInvalidArgument, kDataLoss: not what this rank can do, or a
  // ticket that is none (message for the client).
  Result<KvWish> read(const Json& params) const;
  // kv_transfer_params of an answer. `ticket`: as the engine reported it.
  Json params(const api::KvTicket& ticket) const;
  // The ticket will reach nobody: its lease ends.
  void abandon(const api::KvTicket& ticket) const;

  // kv_transfer_params that nobody will pull with: a notice to the prefill rank ends their lease.
  // Errors as of read().
  Status release(const Json& params);

  // Appends the figures in Prometheus' text format.
  void render_metrics(std::string& out);

  const std::string& engine_id() const { return engine_id_; }

  // Where it serves; with `produces` only.
  const net::Address& address() const { return server_->address(); }

  // For create() only.
  KvTransfer(Private, KvPort& port, KvTransferOptions options, std::string engine_id);

 private:
  Result<TicketPtr> read_ticket(const Json& params) const;

  KvPort& port_;
  const KvTransferOptions options_;
  const std::string engine_id_;
  const std::string identity_;
  const TransferKeys keys_;
  TransferMetrics metrics_;
  std::unique_ptr<KvServer> server_;
  std::unique_ptr<KvPuller> puller_;
};

}  // namespace wideep::kv
