#include "kv/kv_server.h"

#include "base/log.h"
#include "fabric/local_socket.h"
#include "fabric/stream.h"
#include "kv/block_copy.h"
#include "kv/identity.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <variant>
#include <vector>

namespace wideep::kv {
namespace {

constexpr size_t kChecksumsAtOnce = 64;

}  // namespace

std::string local_name(const std::string& engine_id) {
  constexpr size_t kDigits = 32;
  return "wideep-kv-" + to_hex(sha256(std::as_bytes(std::span(engine_id))), kDigits);
}

Result<std::unique_ptr<KvServer>> KvServer::create(KvServerParts parts, KvServerOptions options) {
  auto server = std::make_unique<KvServer>(Private{}, std::move(parts), std::move(options));
  WD_TRY(server->listen());
  server->thread_ = std::thread([&server = *server] { server.run(); });
  return server;
}

KvServer::KvServer(Private, KvServerParts parts, KvServerOptions options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      connections_(options_.connections_max) {}

KvServer::~KvServer() {
  if (!thread_.joinable()) return;
  stop_.set();
  thread_.join();
  connections_.end_all();
}

Status KvServer::listen() {
  WD_ASSIGN_OR_RETURN(tcp_, fabric::listen_at(options_.listen));
  WD_ASSIGN_OR_RETURN(address_, fabric::local_address(tcp_.get(), options_.listen));
  if (options_.offer_shared_memory && parts_.pool.shared_descriptor() >= 0) {
    WD_ASSIGN_OR_RETURN(local_,
                        fabric::listen_local(local_name(parts_.engine_id), fabric::local_stream(),
                                             options_.connections_max));
  }
  WD_ASSIGN_OR_RETURN(stop_, fabric::Event::create());
  return {};
}

void KvServer::run() {
  for (;;) {
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(parts_.leases.expire());
    std::array<pollfd, 3> sockets{pollfd{.fd = stop_.fd(), .events = POLLIN, .revents = 0},
                                  pollfd{.fd = tcp_.get(), .events = POLLIN, .revents = 0},
                                  pollfd{.fd = local_.get(), .events = POLLIN, .revents = 0}};
    const int ready = poll(sockets.data(), sockets.size(),
                           static_cast<int>(std::clamp<int64_t>(wait.count(), 1, 60'000)));
    if (ready <= 0) continue;
    if (sockets[0].revents != 0) return;
    if (sockets[1].revents != 0) accept_from(tcp_.get(), Kind::kTcp);
    if (sockets[2].revents != 0) accept_from(local_.get(), Kind::kLocal);
  }
}

void KvServer::accept_from(int listener, Kind kind) {
  std::optional<fabric::UniqueFd> socket = fabric::accept_patiently(listener, stop_.fd());
  if (!socket) return;
  const Status started =
      connections_.start(*std::move(socket), 0, [this, kind](fabric::UniqueFd own) {
        const Status ended = converse(std::move(own), kind);
        // A connection that its other end closes between two messages has ended well.
        if (ended.error().code != ErrorCode::kUnavailable)
          log_warning("KV: a connection ends: {}", ended.error().message);
      });
  if (!started) log_warning("KV: refused a connection: {}", started.error().message);
}

// Until it fails: the other end leaves, is silent for too long, or says what cannot be.
Status KvServer::converse(fabric::UniqueFd socket, Kind kind) {
  const TimePoint deadline = real_clock().now() + options_.handshake_timeout;
  std::unique_ptr<fabric::Stream> stream;
  if (kind == Kind::kLocal) {
    WD_TRY(fabric::same_user_peer(socket.get()));
    WD_TRY(fabric::send_descriptor(socket.get(), std::span(&kHandOverByte, 1),
                                   parts_.pool.shared_descriptor()));
    stream = fabric::plain_stream(std::move(socket));
  } else {
    WD_TRY(fabric::prepare_socket(socket.get(), {.silence_max = options_.stall_timeout}));
    WD_ASSIGN_OR_RETURN(stream, fabric::open_stream(std::move(socket), fabric::TlsRole::kServer,
                                                    parts_.keys.connection(), deadline));
  }
  WD_TRY(greet(*stream));
  for (;;) {
    WD_ASSIGN_OR_RETURN(const Message message,
                        receive_message(*stream, parts_.keys.message(),
                                        {.idle_until = real_clock().now() + options_.idle_timeout,
                                         .patience = options_.stall_timeout}));
    WD_TRY(answer(*stream, message));
  }
}

Status KvServer::greet(fabric::Stream& stream) {
  WD_ASSIGN_OR_RETURN(
      const Message message,
      receive_message(stream, parts_.keys.message(),
                      {.idle_until = real_clock().now() + options_.handshake_timeout,
                       .patience = options_.stall_timeout}));
  const auto* theirs = std::get_if<Hello>(&message);
  if (theirs == nullptr) return invalid_argument("KV: the first message is no greeting");
  const Hello ours{.protocol_min = kProtocolMin,
                   .protocol_max = kProtocol,
                   .engine_id = parts_.engine_id,
                   .identity = parts_.identity,
                   .num_blocks = parts_.pool.num_blocks()};
  if (const Status fits = check_hello(*theirs, ours); !fits) {
    WD_TRY(refuse(stream, fits.error()));
    return fits;
  }
  return send_message(stream, ours, parts_.keys.message(), stall_deadline());
}

Status KvServer::answer(fabric::Stream& stream, const Message& message) {
  if (const auto* pull = std::get_if<PullRequest>(&message)) return answer_pull(stream, *pull);
  if (const auto* notice = std::get_if<LeaseNotice>(&message)) {
    for (const LeaseId lease : notice->leases) {
      if (notice->what == LeaseNotice::What::kRelease)
        parts_.leases.release(lease);
      else
        parts_.leases.extend(lease);
    }
    return {};
  }
  return invalid_argument("KV: a message of kind {} from a consumer", message.index());
}

// A refused pull leaves the connection as it is: the ticket is at fault, not the consumer.
Status KvServer::answer_pull(fabric::Stream& stream, const PullRequest& pull) {
  const Result<LeaseTable::Pin> pin = admit(pull);
  if (!pin) {
    log_warning("KV: refused a pull: {}", pin.error().message);
    return refuse(stream, pin.error());
  }
  WD_TRY(send_message(stream, PullAnswer{.num_blocks = pull.num_blocks}, parts_.keys.message(),
                      stall_deadline()));
  return send_blocks(stream, pull, pin->lease());
}

Result<LeaseTable::Pin> KvServer::admit(const PullRequest& pull) const {
  WD_ASSIGN_OR_RETURN(const api::KvTicket ticket,
                      api::open_ticket(pull.ticket, std::span(&parts_.keys.ticket(), 1)));
  if (ticket.engine_id != parts_.engine_id)
    return error(ErrorCode::kNotFound, "the ticket is of engine {}, this is {}: was it restarted?",
                 ticket.engine_id, parts_.engine_id);
  std::optional<LeaseTable::Pin> pin = parts_.leases.pin(LeaseId{ticket.lease_id});
  if (!pin)
    return error(ErrorCode::kNotFound, "the lease of request '{}' has expired or was released",
                 ticket.request_id);
  const Lease& lease = pin->lease();
  if (lease.prompt_hash != ticket.prompt_hash || lease.num_tokens != ticket.num_tokens ||
      lease.blocks != ticket.blocks)
    return error(ErrorCode::kDataLoss, "the ticket of request '{}' is not that of its lease",
                 ticket.request_id);
  const uint64_t end = uint64_t{pull.first_block} + pull.num_blocks;
  if (pull.num_blocks == 0 || end > lease.blocks.size())
    return invalid_argument("blocks {} to {} of a lease of {}", pull.first_block, end,
                            lease.blocks.size());
  return *std::move(pin);
}

Status KvServer::send_blocks(fabric::Stream& stream, const PullRequest& pull, const Lease& lease) {
  const PoolImage& image = parts_.pool.image();
  const bool sends_bytes = pull.want == PullRequest::Want::kBytes;
  Checksum checksum;
  std::vector<uint64_t> checksums;
  for (uint32_t i = 0; i < pull.num_blocks; ++i) {
    const api::KvTicket::Block& block = lease.blocks[pull.first_block + i];
    WD_TRY(for_each_piece(image, [&](size_t group, size_t offset, size_t bytes) -> Status {
      const auto piece = parts_.pool.memory(group, block.id).subspan(offset, bytes);
      checksum.add(piece);
      return sends_bytes ? fabric::write_all(stream, piece, stall_deadline()) : Status{};
    }));
    // The pin keeps the blocks as they are; should it ever not, the consumer must see it.
    const bool is_same =
        static_cast<uint32_t>(parts_.pool.generation(block.id)) == block.generation;
    checksums.push_back(is_same ? checksum.take() : ~checksum.take());
    const bool flushes =
        sends_bytes || checksums.size() == kChecksumsAtOnce || i + 1 == pull.num_blocks;
    if (!flushes) continue;
    WD_TRY(fabric::write_all(stream, std::as_bytes(std::span(checksums)), stall_deadline()));
    checksums.clear();
  }
  return {};
}

Status KvServer::refuse(fabric::Stream& stream, const Error& reason) {
  return send_message(stream, Refusal{reason.code, reason.message}, parts_.keys.message(),
                      stall_deadline());
}

}  // namespace wideep::kv
