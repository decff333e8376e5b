#include "kv/kv_transfer.h"

#include "base/log.h"
#include "base/random.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

namespace wideep::kv {
namespace {

constexpr size_t kEngineIdBytesMax = 200;

// A member that must be true, false, null or absent.
Result<bool> flag(const Json& params, std::string_view name) {
  const Json* value = params.find(name);
  if (value == nullptr || value->is_null()) return false;
  if (value->is_bool()) return *value->as_bool();
  return invalid_argument("'{}' must be true or false", name);
}

bool is_any_address(std::string_view host) {
  return host == "0.0.0.0" || host == "::";
}

}  // namespace

Result<std::unique_ptr<KvTransfer>> KvTransfer::create(KvPort& port, KvTransferOptions options) {
  if (options.engine_id.size() > kEngineIdBytesMax)
    return invalid_argument("an engine_id of {} bytes, at most {} are allowed",
                            options.engine_id.size(), kEngineIdBytesMax);
  if (options.advertised_host.empty()) options.advertised_host = options.listen.host;
  if (options.produces && is_any_address(options.advertised_host))
    return invalid_argument("tickets must name a host that decode ranks reach, {} is none",
                            options.advertised_host);
  if (options.produces && options.advertised_host.size() > api::KvTicket::kTextBytesMax)
    return invalid_argument("a host name of {} bytes", options.advertised_host.size());
  if (options.produces && !options.key && !options.insecure && !net::is_loopback(options.listen))
    return invalid_argument("KV may not leave this host ({}) without a key",
                            options.listen.to_string());
  // New at every start, so that tickets of an earlier life are recognised.
  std::string engine_id = fmt::format("{}{}{:016x}", options.engine_id,
                                      options.engine_id.empty() ? "" : "-", random_device_bits());
  auto transfer =
      std::make_unique<KvTransfer>(Private{}, port, std::move(options), std::move(engine_id));
  const KvTransferOptions& set = transfer->options_;
  if (set.produces) {
    KvServerOptions server = set.server;
    server.listen = set.listen;
    WD_ASSIGN_OR_RETURN(transfer->server_, KvServer::create({.pool = port.kv_pool(),
                                                             .leases = port.leases(),
                                                             .engine_id = transfer->engine_id_,
                                                             .identity = transfer->identity_,
                                                             .keys = transfer->keys_},
                                                            std::move(server)));
  }
  if (set.consumes) {
    transfer->puller_ = std::make_unique<KvPuller>(port,
                                                   LinkIdentity{.engine_id = transfer->engine_id_,
                                                                .identity = transfer->identity_,
                                                                .layout = port.kv_pool().layout(),
                                                                .keys = transfer->keys_,
                                                                .allow_plain = set.insecure},
                                                   set.puller, transfer->metrics_);
    port.set_kv_source(transfer->puller_.get());
  }
  return transfer;
}

KvTransfer::KvTransfer(Private, KvPort& port, KvTransferOptions options, std::string engine_id)
    : port_(port),
      options_(std::move(options)),
      engine_id_(std::move(engine_id)),
      identity_(port.kv_identity()),
      keys_(options_.key),
      metrics_(options_.labels) {}

KvTransfer::~KvTransfer() {
  puller_.reset();
  if (options_.consumes) port_.set_kv_source(nullptr);
}

Result<KvWish> KvTransfer::read(const Json& params) const {
  WD_ASSIGN_OR_RETURN(const bool keep, flag(params, "do_remote_decode"));
  WD_ASSIGN_OR_RETURN(const bool pull, flag(params, "do_remote_prefill"));
  if (keep && pull)
    return invalid_argument("do_remote_decode and do_remote_prefill exclude each other");
  if (keep && !options_.produces)
    return invalid_argument("do_remote_decode: this rank keeps no KV for others (kv_role)");
  if (pull && !options_.consumes)
    return invalid_argument("do_remote_prefill: this rank pulls no KV (kv_role)");
  if (!pull) return KvWish{.keep = keep, .ticket = nullptr};
  Result<TicketPtr> ticket = read_ticket(params);
  if (ticket) return KvWish{.keep = false, .ticket = *std::move(ticket)};
  if (!options_.recompute_on_failure) return std::unexpected(ticket.error());
  log_warning("KV: {}; the prompt is computed here", ticket.error().message);
  return KvWish{};
}

Status KvTransfer::release(const Json& params) {
  if (!options_.consumes) return invalid_argument("this rank pulls no KV (kv_role)");
  WD_ASSIGN_OR_RETURN(const TicketPtr ticket, read_ticket(params));
  puller_->let_go(ticket);
  return {};
}

// Only the ticket counts: what stands beside it is for the eye.
Result<TicketPtr> KvTransfer::read_ticket(const Json& params) const {
  const Json* text = params.find("ticket");
  if (text == nullptr || text->as_string() == nullptr)
    return invalid_argument("kv_transfer_params have no 'ticket': they are not of our prefill");
  WD_ASSIGN_OR_RETURN(api::KvTicket ticket,
                      api::open_ticket(*text->as_string(), std::span(&keys_.ticket(), 1)));
  if (ticket.compatibility != compatibility(identity_)) {
    const Json* theirs = params.find("remote_identity");
    const bool is_told = theirs != nullptr && theirs->as_string() != nullptr;
    WD_TRY(check_identity(is_told ? *theirs->as_string() : "not told", identity_));
    return invalid_argument("the KV protocols of the two sides differ");
  }
  return std::make_shared<const SealedTicket>(std::move(ticket), *text->as_string());
}

Json KvTransfer::params(const api::KvTicket& reported) const {
  api::KvTicket ticket = reported;
  ticket.engine_id = engine_id_;
  ticket.host = options_.advertised_host;
  ticket.port = server_->address().port;
  ticket.request_id.resize(std::min(ticket.request_id.size(), api::KvTicket::kTextBytesMax));
  ticket.compatibility = compatibility(identity_);
  Json params = api::to_kv_transfer_params(ticket, keys_.ticket());
  params.set("remote_identity", identity_);  // so that a refusal can name both sides
  return params;
}

void KvTransfer::abandon(const api::KvTicket& ticket) const {
  port_.leases().release(LeaseId{ticket.lease_id});
}

void KvTransfer::render_metrics(std::string& out) {
  metrics_.render(options_.produces ? port_.leases().stats() : LeaseStats{}, out);
}

}  // namespace wideep::kv
