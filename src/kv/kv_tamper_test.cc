// What comes altered, cut or stale is never believed.
#include "base/random.h"
#include "kv/kv_link.h"
#include "kv/kv_server.h"
#include "kv/test_port.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <optional>
#include <thread>

namespace wideep::kv {
namespace {

const TransferKeys kKeys{std::nullopt};
// Its local socket is named after it: of this process alone.
const std::string kProducer = fmt::format("producer-{:016x}", random_device_bits());
constexpr std::chrono::seconds kPatience{60};
// Where a flipped bit of a length makes somebody wait for bytes that never come.
constexpr std::chrono::milliseconds kImpatience{100};

net::Address loopback() {
  return {.host = "127.0.0.1", .port = 0, .path = {}};
}

// Carries one connection; flips a bit of what the producer says, or ends it there.
class Meddler {
 public:
  enum class Act : uint8_t { kFlip, kCut };

  Meddler(const net::Address& producer, Act act, size_t at)
      : act_(act),
        at_(at),
        listener_(*fabric::listen_at(loopback())),
        address_(*fabric::local_address(listener_.get(), loopback())),
        thread_([this, producer] { carry(producer); }) {}

  ~Meddler() { thread_.join(); }

  const net::Address& address() const { return address_; }

 private:
  void carry(const net::Address& producer) {
    const TimePoint deadline = real_clock().now() + kPatience;
    const auto consumer = stream(*fabric::accept_call(listener_.get(), deadline));
    const auto server = stream(*fabric::connect_to(producer, deadline));
    std::array<std::byte, 4096> bytes;
    for (size_t passed = 0;;) {
      std::array<pollfd, 2> ready{pollfd{.fd = consumer->fd(), .events = POLLIN, .revents = 0},
                                  pollfd{.fd = server->fd(), .events = POLLIN, .revents = 0}};
      poll(ready.data(), ready.size(), 60'000);
      const auto asked = consumer->read(bytes);
      if (!asked || !fabric::write_all(*server, std::span(bytes).first(*asked), deadline)) return;
      const auto told = server->read(bytes);
      if (!told) return;
      if (at_ >= passed && at_ < passed + *told) {
        if (act_ == Act::kCut) return;
        bytes[at_ - passed] ^= std::byte{0x10};
      }
      passed += *told;
      if (!fabric::write_all(*consumer, std::span(bytes).first(*told), deadline)) return;
    }
  }

  static std::unique_ptr<fabric::Stream> stream(fabric::UniqueFd socket) {
    EXPECT_TRUE(fabric::prepare_socket(socket.get(), {}));
    return fabric::plain_stream(std::move(socket));
  }

  const Act act_;
  const size_t at_;
  fabric::UniqueFd listener_;
  net::Address address_;
  std::thread thread_;
};

struct Ranks {
  Ranks() : prefill(TestPort::two_groups(), 16), decode(TestPort::two_groups(), 16) {
    auto created = KvServer::create({.pool = prefill.kv_pool(),
                                     .leases = prefill.leases(),
                                     .engine_id = kProducer,
                                     .identity = prefill.kv_identity(),
                                     .keys = kKeys},
                                    {.listen = loopback()});
    WD_CHECK(created.has_value());
    server = *std::move(created);
    blocks = prefill.take(2);
    prefill.fill(blocks, 1);
    targets = decode.take(2);
  }

  api::KvTicket ticket_for(const net::Address& address) {
    api::KvTicket ticket = prefill.lease(blocks);
    ticket.engine_id = kProducer;
    ticket.host = address.host;
    ticket.port = address.port;
    return ticket;
  }

  // A pull over a connection of its own. `patience` with a producer that says nothing.
  PullOutcome pull(const api::KvTicket& ticket,
                   Transport transport,
                   Duration patience = kPatience) {
    const PullJob job{
        .sequence = SequenceId{1},
        .ticket = std::make_shared<const SealedTicket>(ticket, api::seal(ticket, kKeys.ticket())),
        .first_block = 0,
        .targets = targets};
    const auto link = KvLink::open(ticket,
                                   {.engine_id = "consumer",
                                    .identity = decode.kv_identity(),
                                    .layout = decode.kv_pool().layout(),
                                    .keys = kKeys},
                                   {.use_shared_memory = transport == Transport::kSharedMemory,
                                    .use_tcp = transport == Transport::kTcp,
                                    .handshake_timeout = patience,
                                    .stall_timeout = patience});
    PullOutcome outcome;
    if (link) {
      const std::atomic<bool> cancelled = false;
      outcome = (*link)->pull(job, decode.kv_pool(), cancelled);
    } else {
      outcome.status = std::unexpected(link.error());
    }
    prefill.leases().release(LeaseId{ticket.lease_id});
    return outcome;
  }

  TestPort prefill;
  TestPort decode;
  std::unique_ptr<KvServer> server;
  std::vector<BlockId> blocks;
  std::vector<BlockId> targets;
};

// What the producer says in a pull: its greeting, its answer, two blocks with their checksums.
size_t bytes_told(const Ranks& ranks) {
  const auto size = [](const Message& message) { return encode(message, kKeys.message()).size(); };
  const Hello hello{.engine_id = kProducer, .identity = ranks.prefill.kv_identity()};
  const auto block = static_cast<size_t>(ranks.prefill.kv_pool().image().block_bytes());
  return size(hello) + size(PullAnswer{}) + 2 * (block + sizeof(uint64_t));
}

TEST(KvTamper, AFlippedBitAnywhereFailsThePull) {
  Ranks ranks;
  const size_t all = bytes_told(ranks);
  for (size_t at = 0; at < all; at += 7) {
    const Meddler meddler(ranks.server->address(), Meddler::Act::kFlip, at);
    const PullOutcome outcome =
        ranks.pull(ranks.ticket_for(meddler.address()), Transport::kTcp, kImpatience);
    ASSERT_FALSE(outcome.status) << "byte " << at << " of " << all;
    for (int64_t i = 0; i < outcome.num_blocks; ++i)
      EXPECT_TRUE(
          ranks.decode.holds_the_same({ranks.targets[i]}, ranks.prefill, {ranks.blocks[i]}));
  }
  const Meddler harmless(ranks.server->address(), Meddler::Act::kFlip, all);
  EXPECT_TRUE(ranks.pull(ranks.ticket_for(harmless.address()), Transport::kTcp).status);
}

TEST(KvTamper, APullThatIsCutAnywhereFails) {
  Ranks ranks;
  const size_t all = bytes_told(ranks);
  for (size_t at = 0; at < all; at += 31) {
    const Meddler meddler(ranks.server->address(), Meddler::Act::kCut, at);
    EXPECT_FALSE(ranks.pull(ranks.ticket_for(meddler.address()), Transport::kTcp).status) << at;
  }
}

// Not under the thread sanitizer: reading what may be overwritten is what is tested here.
#if !__has_feature(thread_sanitizer)
TEST(KvTamper, BlocksThatAreReusedDuringTheCopyAreNotBelieved) {
  Ranks ranks;
  TestPort original(TestPort::two_groups(), 2);
  const auto copy = original.take(2);
  original.fill(copy, 1);
  uint64_t num_good = 0;
  uint64_t round = 0;
  // Until the engine has been the faster one at least once.
  const TimePoint give_up = real_clock().now() + kPatience;
  for (; round < 300 || (num_good == round && real_clock().now() < give_up); ++round) {
    ranks.prefill.fill(ranks.blocks, 1);
    const api::KvTicket ticket = ranks.ticket_for(ranks.server->address());
    // An engine that errs: it gives a leased block away and writes into it.
    std::thread engine([&] {
      for (uint64_t wait = random_bits(1, round) % 4000; wait > 0; --wait)
        std::atomic_signal_fence(std::memory_order_seq_cst);
      ranks.prefill.pool().release(ranks.blocks[1]);
      ranks.blocks[1] = ranks.prefill.take(1)[0];  // the one freed last comes back
      ranks.prefill.fill({ranks.blocks[1]}, 1000 + round);
    });
    const PullOutcome outcome =
        ranks.pull(ticket, round % 2 == 0 ? Transport::kSharedMemory : Transport::kTcp);
    engine.join();
    if (!outcome.status) continue;
    ++num_good;
    ASSERT_TRUE(ranks.decode.holds_the_same(ranks.targets, original, copy)) << round;
  }
  EXPECT_LT(num_good, round);
}
#endif

}  // namespace
}  // namespace wideep::kv
