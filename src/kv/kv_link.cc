#include "kv/kv_link.h"

#include "base/log.h"
#include "fabric/local_socket.h"
#include "kv/block_copy.h"
#include "kv/identity.h"
#include "kv/kv_server.h"

#include <poll.h>

#include <cstring>
#include <utility>
#include <variant>
#include <vector>

namespace wideep::kv {
namespace {

constexpr std::chrono::milliseconds kCancelCheck{20};

}  // namespace

std::string_view name(Transport transport) {
  return transport == Transport::kSharedMemory ? "shm" : "tcp";
}

struct KvLink::Pull {
  const PullJob& job;
  const BlockPool& pool;
  const std::atomic<bool>& cancelled;

  const api::KvTicket::Block& source(size_t i) const {
    return job.ticket->ticket.blocks[job.first_block + i];
  }

  size_t num_blocks() const { return job.targets.size(); }
};

KvLink::KvLink(Private,
               std::unique_ptr<fabric::Stream> stream,
               const LinkIdentity& self,
               const LinkOptions& options)
    : stream_(std::move(stream)), keys_(self.keys), options_(options) {}

Result<std::unique_ptr<KvLink>> KvLink::open(const api::KvTicket& ticket,
                                             const LinkIdentity& self,
                                             const LinkOptions& options) {
  if (options.use_shared_memory) {
    auto local = open_local(ticket, self, options);
    // On another host, or without shared memory: nobody listens under that name.
    if (local || local.error().code != ErrorCode::kNotFound || !options.use_tcp) return local;
  }
  return open_tcp(ticket, self, options);
}

Result<std::unique_ptr<KvLink>> KvLink::open_local(const api::KvTicket& ticket,
                                                   const LinkIdentity& self,
                                                   const LinkOptions& options) {
  WD_ASSIGN_OR_RETURN(fabric::UniqueFd socket,
                      fabric::connect_local(local_name(ticket.engine_id), fabric::local_stream()));
  WD_TRY(fabric::same_user_peer(socket.get()));
  pollfd readable{.fd = socket.get(), .events = POLLIN, .revents = 0};
  const auto patience =
      std::chrono::ceil<std::chrono::milliseconds>(options.handshake_timeout).count();
  if (poll(&readable, 1, static_cast<int>(patience)) <= 0)
    return error(ErrorCode::kTimeout, "KV: engine {} hands nothing over", ticket.engine_id);
  std::byte first{};
  WD_ASSIGN_OR_RETURN(fabric::ReceivedDescriptor received,
                      fabric::receive_descriptor(socket.get(), std::span(&first, 1)));
  if (received.num_bytes != 1 || first != kHandOverByte || !received.descriptor)
    return error(ErrorCode::kUnavailable, "KV: engine {} hands no memory over", ticket.engine_id);
  auto link =
      std::make_unique<KvLink>(Private{}, fabric::plain_stream(std::move(socket)), self, options);
  WD_ASSIGN_OR_RETURN(const Hello hello, link->greet(ticket, self));
  WD_ASSIGN_OR_RETURN(link->image_, PoolImage::create(self.layout, hello.num_blocks));
  WD_ASSIGN_OR_RETURN(link->memory_, fabric::SharedMemory::map_read_only(
                                         std::move(received.descriptor), link->image_->bytes()));
  return link;
}

Result<std::unique_ptr<KvLink>> KvLink::open_tcp(const api::KvTicket& ticket,
                                                 const LinkIdentity& self,
                                                 const LinkOptions& options) {
  const net::Address address{.host = ticket.host, .port = ticket.port, .path = {}};
  if (!self.keys.connection() && !self.allow_plain && !net::is_loopback(address))
    return invalid_argument("KV: {} is another host, and there is no key", address.to_string());
  WD_ASSIGN_OR_RETURN(fabric::UniqueFd socket,
                      fabric::connect_to(address, real_clock().now() + options.connect_timeout));
  WD_TRY(fabric::prepare_socket(socket.get(), {.silence_max = options.stall_timeout}));
  WD_ASSIGN_OR_RETURN(
      std::unique_ptr<fabric::Stream> stream,
      fabric::open_stream(std::move(socket), fabric::TlsRole::kClient, self.keys.connection(),
                          real_clock().now() + options.handshake_timeout));
  auto link = std::make_unique<KvLink>(Private{}, std::move(stream), self, options);
  WD_TRY(link->greet(ticket, self));
  return link;
}

Result<Hello> KvLink::greet(const api::KvTicket& ticket, const LinkIdentity& self) {
  const Hello ours{.protocol_min = kProtocolMin,
                   .protocol_max = kProtocol,
                   .engine_id = self.engine_id,
                   .identity = self.identity,
                   .num_blocks = 0};
  const TimePoint deadline = real_clock().now() + options_.handshake_timeout;
  WD_TRY(send_message(*stream_, ours, keys_.message(), deadline));
  WD_ASSIGN_OR_RETURN(Message message, receive_message(*stream_, keys_.message(),
                                                       {.idle_until = deadline,
                                                        .patience = options_.stall_timeout}));
  if (auto* refusal = std::get_if<Refusal>(&message))
    return error(refusal->code, "KV: engine {} refuses: {}", ticket.engine_id, refusal->reason);
  auto* theirs = std::get_if<Hello>(&message);
  if (theirs == nullptr) return invalid_argument("KV: the answer to a greeting is none");
  WD_TRY(check_hello(*theirs, ours));
  if (theirs->engine_id != ticket.engine_id)
    return error(ErrorCode::kNotFound, "KV: engine {} answers where {} was: was it restarted?",
                 theirs->engine_id, ticket.engine_id);
  return std::move(*theirs);
}

PullOutcome KvLink::pull(const PullJob& job,
                         const BlockPool& pool,
                         const std::atomic<bool>& cancelled) {
  const TimePoint begin = real_clock().now();
  const Pull pull{job, pool, cancelled};
  PullOutcome outcome{.sequence = job.sequence, .transport = transport()};
  outcome.status = request(pull);
  if (outcome.status) {
    outcome.status =
        image_ ? copy_blocks(pull, outcome.num_blocks) : receive_blocks(pull, outcome.num_blocks);
    if (!outcome.status) is_broken_ = true;  // nobody knows where in the stream it is
  }
  outcome.num_bytes = outcome.num_blocks * pool.image().block_bytes();
  outcome.duration = real_clock().now() - begin;
  return outcome;
}

Status KvLink::notify(const LeaseNotice& notice) {
  Status sent =
      send_message(*stream_, notice, keys_.message(), real_clock().now() + options_.stall_timeout);
  if (!sent) is_broken_ = true;
  return sent;
}

// Asks for the blocks; ok once their bytes or checksums follow.
Status KvLink::request(const Pull& pull) {
  const PullRequest request{
      .ticket = pull.job.ticket->text,
      .first_block = pull.job.first_block,
      .num_blocks = static_cast<uint32_t>(pull.num_blocks()),
      .want = image_ ? PullRequest::Want::kChecksums : PullRequest::Want::kBytes};
  is_broken_ = true;  // until all is well
  const TimePoint deadline = real_clock().now() + options_.stall_timeout;
  WD_TRY(send_message(*stream_, request, keys_.message(), deadline));
  WD_ASSIGN_OR_RETURN(const Message message, receive_message(*stream_, keys_.message(),
                                                             {.idle_until = deadline,
                                                              .patience = options_.stall_timeout}));
  if (const auto* refusal = std::get_if<Refusal>(&message)) {
    is_broken_ = false;
    return error(refusal->code, "KV: engine {} refuses: {}", pull.job.ticket->ticket.engine_id,
                 refusal->reason);
  }
  const auto* answer = std::get_if<PullAnswer>(&message);
  if (answer == nullptr || answer->num_blocks != request.num_blocks)
    return invalid_argument("KV: a pull of {} blocks gets an answer that does not fit",
                            request.num_blocks);
  is_broken_ = false;
  return {};
}

Status KvLink::receive_blocks(const Pull& pull, int64_t& num_good) {
  Checksum checksum;
  for (size_t i = 0; i < pull.num_blocks(); ++i) {
    WD_TRY(
        for_each_piece(pull.pool.image(), [&](size_t group, size_t offset, size_t bytes) -> Status {
          const auto piece = pull.pool.memory(group, pull.job.targets[i]).subspan(offset, bytes);
          WD_TRY(read(piece, pull.cancelled));
          checksum.add(piece);
          return {};
        }));
    uint64_t expected = 0;
    WD_TRY(read(std::as_writable_bytes(std::span(&expected, 1)), pull.cancelled));
    if (checksum.take() != expected)
      return error(ErrorCode::kDataLoss, "KV: block {} of the pull arrived with a wrong checksum",
                   i);
    ++num_good;
  }
  return {};
}

// The producer sums its blocks while this rank copies them. A block whose generation is the
// ticket's before and after its copy was not given to anybody else meanwhile.
Status KvLink::copy_blocks(const Pull& pull, int64_t& num_good) {
  Checksum checksum;
  std::vector<uint64_t> copied;
  const auto memory = std::as_const(memory_).bytes();
  const auto check_generation = [&](size_t i) -> Status {
    const api::KvTicket::Block& block = pull.source(i);
    if (static_cast<uint32_t>(read_generation(*image_, memory, block.id)) == block.generation)
      return {};
    return error(ErrorCode::kDataLoss, "KV: block {} was given to somebody else", index(block.id));
  };
  for (size_t i = 0; i < pull.num_blocks(); ++i) {
    const BlockId from = pull.source(i).id;
    if (index(from) < 0 || index(from) >= image_->num_blocks())
      return invalid_argument("KV: block {} of {}", index(from), image_->num_blocks());
    WD_TRY(check_generation(i));
    WD_TRY(for_each_piece(*image_, [&](size_t group, size_t offset, size_t bytes) -> Status {
      if (pull.cancelled) return error(ErrorCode::kCancelled, "KV: the pull was cancelled");
      const auto source = image_->block(memory, group, from).subspan(offset, bytes);
      const auto target = pull.pool.memory(group, pull.job.targets[i]).subspan(offset, bytes);
      std::memcpy(target.data(), source.data(), bytes);
      checksum.add(target);
      return {};
    }));
    WD_TRY(check_generation(i));
    copied.push_back(checksum.take());
  }
  std::vector<uint64_t> expected(copied.size());
  WD_TRY(read(std::as_writable_bytes(std::span(expected)), pull.cancelled));
  for (size_t i = 0; i < copied.size(); ++i, ++num_good)
    if (copied[i] != expected[i])
      return error(ErrorCode::kDataLoss, "KV: block {} of the pull has a wrong checksum", i);
  return {};
}

Status KvLink::read(std::span<std::byte> bytes, const std::atomic<bool>& cancelled) {
  TimePoint deadline = real_clock().now() + options_.stall_timeout;
  while (!bytes.empty()) {
    if (cancelled) return error(ErrorCode::kCancelled, "KV: the pull was cancelled");
    WD_ASSIGN_OR_RETURN(const size_t count, stream_->read(bytes));
    bytes = bytes.subspan(count);
    const TimePoint now = real_clock().now();
    if (count > 0) {
      deadline = now + options_.stall_timeout;
      continue;
    }
    if (now >= deadline) return error(ErrorCode::kTimeout, "KV: nothing comes any more");
    pollfd readable{.fd = stream_->fd(), .events = POLLIN, .revents = 0};
    poll(&readable, 1, static_cast<int>(kCancelCheck.count()));
  }
  return {};
}

}  // namespace wideep::kv
