// Two ranks in one process: real sockets, real shared memory, no engine.
#include "kv/kv_transfer.h"

#include "fabric/stream.h"
#include "kv/test_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::kv {
namespace {

using ::testing::HasSubstr;

KvTransferOptions options_of(Transport transport) {
  KvTransferOptions options{
      .produces = true, .consumes = true, .listen = {.host = "127.0.0.1", .port = 0, .path = {}}};
  options.puller.link.use_shared_memory = transport == Transport::kSharedMemory;
  options.puller.link.use_tcp = transport == Transport::kTcp;
  options.labels = {{"model_name", "m"}, {"engine", "0"}};
  return options;
}

const TransferKeys kKeys{std::nullopt};

// One that has KV and one that wants it.
struct Pair {
  explicit Pair(const KvTransferOptions& options,
                KvLayout layout = TestPort::two_groups(),
                std::string other_model = "m")
      : prefill(layout, 32), decode(layout, 20, std::move(other_model)) {
    auto one = KvTransfer::create(prefill, options);
    auto other = KvTransfer::create(decode, options);
    EXPECT_TRUE(one) << one.error().message;
    EXPECT_TRUE(other) << other.error().message;
    prefill_kv = *std::move(one);
    decode_kv = *std::move(other);
  }

  // Through the parameters of the API, as a sidecar carries them.
  TicketPtr carry(const api::KvTicket& ticket) const {
    auto wish = decode_kv->read(prefill_kv->params(ticket));
    EXPECT_TRUE(wish) << wish.error().message;
    return wish->ticket;
  }

  PullOutcome pull(const TicketPtr& ticket, std::vector<BlockId> targets, uint32_t first = 0) {
    decode.source().pull({.sequence = SequenceId{1},
                          .ticket = ticket,
                          .first_block = first,
                          .targets = std::move(targets)});
    return decode.wait_for_pull();
  }

  TestPort prefill;
  TestPort decode;
  std::unique_ptr<KvTransfer> prefill_kv;
  std::unique_ptr<KvTransfer> decode_kv;
};

class OverEachTransport : public ::testing::TestWithParam<Transport> {};

TEST_P(OverEachTransport, BlocksArriveAsTheyWereAndTheLeaseEnds) {
  Pair pair(options_of(GetParam()));
  const auto blocks = pair.prefill.take(5);
  pair.prefill.fill(blocks, 1);
  const auto targets = pair.decode.take(5);
  const auto outcome = pair.pull(pair.carry(pair.prefill.lease(blocks)), targets);
  ASSERT_TRUE(outcome.status) << outcome.status.error().message;
  EXPECT_EQ(outcome.transport, GetParam());
  EXPECT_EQ(outcome.num_blocks, 5);
  EXPECT_EQ(outcome.num_bytes, 5 * 16 * (3 * 24 + 8));
  EXPECT_TRUE(pair.decode.holds_the_same(targets, pair.prefill, blocks));
  pair.prefill.wait_for_ended_leases(1);
}

TEST_P(OverEachTransport, OnlyTheBlocksThatAreAskedForMove) {
  Pair pair(options_of(GetParam()));
  const auto blocks = pair.prefill.take(5);
  pair.prefill.fill(blocks, 1);
  const auto targets = pair.decode.take(2);
  const auto outcome = pair.pull(pair.carry(pair.prefill.lease(blocks)), targets, 3);
  ASSERT_TRUE(outcome.status) << outcome.status.error().message;
  EXPECT_EQ(outcome.num_bytes, 2 * 16 * (3 * 24 + 8));
  EXPECT_TRUE(pair.decode.holds_the_same(targets, pair.prefill, {blocks[3], blocks[4]}));
}

TEST_P(OverEachTransport, BlocksOfManyPiecesArriveToo) {
  Pair pair(options_of(GetParam()), TestPort::two_groups(/*token_bytes=*/20'000));
  const auto blocks = pair.prefill.take(3);
  pair.prefill.fill(blocks, 9);
  const auto targets = pair.decode.take(3);
  ASSERT_TRUE(pair.pull(pair.carry(pair.prefill.lease(blocks)), targets).status);
  EXPECT_TRUE(pair.decode.holds_the_same(targets, pair.prefill, blocks));
}

TEST_P(OverEachTransport, ALeaseThatHasEndedIsRefused) {
  Pair pair(options_of(GetParam()));
  const auto ticket = pair.prefill.lease(pair.prefill.take(2));
  pair.prefill.leases().release(LeaseId{ticket.lease_id});
  const auto outcome = pair.pull(pair.carry(ticket), pair.decode.take(2));
  EXPECT_EQ(outcome.status.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(outcome.status.error().message, HasSubstr("has expired or was released"));
  EXPECT_EQ(outcome.num_blocks, 0);
}

TEST_P(OverEachTransport, ATicketThatIsNotOfItsLeaseIsRefused) {
  Pair pair(options_of(GetParam()));
  const auto mine = pair.prefill.lease(pair.prefill.take(2));
  auto swapped = pair.prefill.lease(pair.prefill.take(2));
  swapped.blocks = mine.blocks;
  const auto outcome = pair.pull(pair.carry(swapped), pair.decode.take(2));
  EXPECT_EQ(outcome.status.error().code, ErrorCode::kDataLoss);
}

TEST_P(OverEachTransport, BlocksThatWereGivenToSomebodyElseAreNotBelieved) {
  Pair pair(options_of(GetParam()));
  std::vector<BlockId> blocks = pair.prefill.take(2);
  const auto ticket = pair.prefill.lease(blocks);
  pair.prefill.pool().release(blocks[1]);  // an engine that errs: the lease is still there
  const auto outcome = pair.pull(pair.carry(ticket), pair.decode.take(2));
  EXPECT_EQ(outcome.status.error().code, ErrorCode::kDataLoss);
  EXPECT_LE(outcome.num_blocks, 1);
}

TEST_P(OverEachTransport, AProducerThatWasRestartedIsRecognised) {
  const KvTransferOptions options = options_of(GetParam());
  Pair pair(options);
  const TicketPtr ticket = pair.carry(pair.prefill.lease(pair.prefill.take(1)));
  KvTransferOptions again = options;
  again.listen = pair.prefill_kv->address();
  pair.prefill_kv.reset();
  pair.prefill_kv = *KvTransfer::create(pair.prefill, again);
  const auto outcome = pair.pull(ticket, pair.decode.take(1));
  EXPECT_EQ(outcome.status.error().code, ErrorCode::kNotFound) << outcome.status.error().message;
}

TEST_P(OverEachTransport, SidesThatDoNotFitAreRefusedWithBothNamed) {
  Pair pair(options_of(GetParam()), TestPort::two_groups(), "other");
  const Json params = pair.prefill_kv->params(pair.prefill.lease(pair.prefill.take(1)));
  const auto at_the_door = pair.decode_kv->read(params);
  // A ticket that says something else than the greeting: the greeting is asked too.
  api::KvTicket ticket =
      *api::open_ticket(*params.find("ticket")->as_string(), std::span(&kKeys.ticket(), 1));
  auto sealed = std::make_shared<SealedTicket>();
  sealed->ticket = ticket;
  sealed->text = *params.find("ticket")->as_string();
  const auto outcome = pair.pull(sealed, pair.decode.take(1));
  for (const Error& error : {at_the_door.error(), outcome.status.error()}) {
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.message, HasSubstr("model m;"));
    EXPECT_THAT(error.message, HasSubstr("model other;"));
  }
}

TEST_P(OverEachTransport, WhoLetsGoEndsTheLease) {
  Pair pair(options_of(GetParam()));
  const TicketPtr ticket = pair.carry(pair.prefill.lease(pair.prefill.take(1)));
  pair.decode.source().hold(ticket);
  pair.decode.source().let_go(ticket);
  pair.prefill.wait_for_ended_leases(1);
}

TEST_P(OverEachTransport, APullThatWasCancelledStillEnds) {
  Pair pair(options_of(GetParam()));
  const TicketPtr ticket = pair.carry(pair.prefill.lease(pair.prefill.take(1)));
  pair.decode.source().cancel(SequenceId{1});  // unknown yet: nothing happens
  pair.decode.source().pull({.sequence = SequenceId{1},
                             .ticket = ticket,
                             .first_block = 0,
                             .targets = pair.decode.take(1)});
  pair.decode.source().cancel(SequenceId{1});
  const auto outcome = pair.decode.wait_for_pull();  // whoever was first
  EXPECT_TRUE(outcome.status || outcome.status.error().code == ErrorCode::kCancelled);
  pair.prefill.wait_for_ended_leases(1);
}

INSTANTIATE_TEST_SUITE_P(Kv,
                         OverEachTransport,
                         ::testing::Values(Transport::kSharedMemory, Transport::kTcp),
                         [](const auto& info) { return std::string(name(info.param)); });

// A client that leaves is heard of twice: by its connection, and by a sidecar that lets the KV go.
TEST(KvTransfer, APullWhoseTicketIsLetGoIsCancelledBeforeTheLeaseEnds) {
  KvTransferOptions options = options_of(Transport::kTcp);
  options.puller.num_threads = 1;
  options.puller.link.handshake_timeout = TestPort::kPatience;
  Pair pair(options);
  fabric::UniqueFd silent = *fabric::listen_at({.host = "127.0.0.1"});
  const api::KvTicket nowhere{
      .engine_id = "silent",
      .host = "127.0.0.1",
      .port = fabric::local_address(silent.get(), {.host = "127.0.0.1"})->port,
      .blocks = {{}}};
  const TicketPtr ticket = pair.carry(pair.prefill.lease(pair.prefill.take(1)));
  // The only thread is busy with the first.
  pair.decode.source().pull({.sequence = SequenceId{1},
                             .ticket = std::make_shared<const SealedTicket>(nowhere, ""),
                             .first_block = 0,
                             .targets = pair.decode.take(1)});
  pair.decode.source().pull({.sequence = SequenceId{2},
                             .ticket = ticket,
                             .first_block = 0,
                             .targets = pair.decode.take(1)});
  pair.decode.source().let_go(ticket);
  silent = fabric::UniqueFd();
  EXPECT_FALSE(pair.decode.wait_for_pull().status);
  const auto outcome = pair.decode.wait_for_pull();
  EXPECT_EQ(outcome.sequence, SequenceId{2});
  ASSERT_FALSE(outcome.status);
  EXPECT_EQ(outcome.status.error().code, ErrorCode::kCancelled);
  pair.prefill.wait_for_ended_leases(1);
}

TEST(KvTransfer, HeartbeatsKeepALeaseAlive) {
  KvTransferOptions options = options_of(Transport::kTcp);
  options.puller.lease_duration = std::chrono::milliseconds(60);
  Pair pair(options);
  const auto ticket = pair.prefill.lease(pair.prefill.take(1));
  pair.decode.source().hold(pair.carry(ticket));
  // Extended by the first heartbeat: nothing else moves its deadline.
  const TimePoint give_up = real_clock().now() + TestPort::kPatience;
  while (pair.prefill.leases().stats().num_extended == 0 && real_clock().now() < give_up)
    std::this_thread::yield();
  EXPECT_GT(pair.prefill.leases().stats().num_extended, 0);
}

TEST(KvTransfer, SharedMemoryIsChosenOnOneHostAndTcpWhereThereIsNone) {
  KvTransferOptions options = options_of(Transport::kTcp);
  options.puller.link.use_shared_memory = true;
  {
    Pair pair(options);
    const auto outcome =
        pair.pull(pair.carry(pair.prefill.lease(pair.prefill.take(1))), pair.decode.take(1));
    EXPECT_EQ(outcome.transport, Transport::kSharedMemory);
  }
  options.server.offer_shared_memory = false;
  Pair pair(options);
  const auto outcome =
      pair.pull(pair.carry(pair.prefill.lease(pair.prefill.take(1))), pair.decode.take(1));
  ASSERT_TRUE(outcome.status) << outcome.status.error().message;
  EXPECT_EQ(outcome.transport, Transport::kTcp);
}

TEST(KvTransfer, SpeaksTlsWithAKeyAndToNobodyWithAnother) {
  KvTransferOptions options = options_of(Transport::kTcp);
  options.key = *fabric::PresharedKey::from_secret("a secret of sixteen bytes");
  Pair pair(options);
  const auto blocks = pair.prefill.take(2);
  pair.prefill.fill(blocks, 3);
  const auto targets = pair.decode.take(2);
  const TicketPtr ticket = pair.carry(pair.prefill.lease(blocks));
  ASSERT_TRUE(pair.pull(ticket, targets).status);
  EXPECT_TRUE(pair.decode.holds_the_same(targets, pair.prefill, blocks));

  options.key = *fabric::PresharedKey::from_secret("another secret of sixteen");
  TestPort stranger(TestPort::two_groups(), 4);
  const auto stranger_kv = *KvTransfer::create(stranger, options);
  const auto params = pair.prefill_kv->params(pair.prefill.lease(blocks));
  EXPECT_EQ(stranger_kv->read(params).error().code, ErrorCode::kDataLoss);
  stranger.source().pull(
      {.sequence = SequenceId{1}, .ticket = ticket, .first_block = 0, .targets = stranger.take(1)});
  EXPECT_FALSE(stranger.wait_for_pull().status);
}

TEST(KvTransfer, NothingLeavesTheHostWithoutAKey) {
  TestPort port(TestPort::two_groups(), 4);
  KvTransferOptions options = options_of(Transport::kTcp);
  options.listen.host = "0.0.0.0";
  EXPECT_THAT(KvTransfer::create(port, options).error().message, HasSubstr("name a host"));
  options.advertised_host = "10.1.2.3";
  EXPECT_THAT(KvTransfer::create(port, options).error().message, HasSubstr("without a key"));
  options.insecure = true;
  EXPECT_TRUE(KvTransfer::create(port, options));
}

TEST(KvTransfer, ReadsWhatARequestWantsAndRefusesTheRest) {
  TestPort port(TestPort::two_groups(), 4);
  KvTransferOptions options = options_of(Transport::kTcp);
  const auto both = *KvTransfer::create(port, options);
  const auto json = [](std::string_view text) { return *parse_json(text); };
  EXPECT_TRUE(both->read(json(R"({"do_remote_decode":true,"do_remote_prefill":false,
      "remote_engine_id":null,"remote_block_ids":null})"))
                  ->keep);
  EXPECT_FALSE(both->read(json("{}"))->keep);
  EXPECT_FALSE(both->read(json(R"({"do_remote_decode":1})")));
  EXPECT_FALSE(both->read(json(R"({"do_remote_decode":true,"do_remote_prefill":true})")));
  EXPECT_THAT(both->read(json(R"({"do_remote_prefill":true})")).error().message,
              HasSubstr("'ticket'"));
  EXPECT_FALSE(both->read(json(R"({"do_remote_prefill":true,"ticket":"forged"})")));
  options.recompute_on_failure = true;
  const auto lenient = *KvTransfer::create(port, options);
  const auto wish = lenient->read(json(R"({"do_remote_prefill":true,"ticket":"forged"})"));
  ASSERT_TRUE(wish);
  EXPECT_EQ(wish->ticket, nullptr);
  options.consumes = false;
  EXPECT_THAT((*KvTransfer::create(port, options))
                  ->read(json(R"({"do_remote_prefill":true})"))
                  .error()
                  .message,
              HasSubstr("kv_role"));
  options = options_of(Transport::kTcp);
  options.produces = false;
  EXPECT_THAT((*KvTransfer::create(port, options))
                  ->read(json(R"({"do_remote_decode":true})"))
                  .error()
                  .message,
              HasSubstr("kv_role"));
}

TEST(KvTransfer, CountsWhatItDoes) {
  Pair pair(options_of(Transport::kTcp));
  ASSERT_TRUE(
      pair.pull(pair.carry(pair.prefill.lease(pair.prefill.take(1))), pair.decode.take(1)).status);
  std::string text;
  pair.decode_kv->render_metrics(text);
  EXPECT_THAT(text,
              HasSubstr("vllm:nixl_xfer_time_seconds_count{model_name=\"m\",engine=\"0\"} 1"));
  EXPECT_THAT(text, HasSubstr("transport=\"tcp\"} 1280"));
  pair.prefill.lease(pair.prefill.take(2));
  text.clear();
  pair.prefill_kv->render_metrics(text);
  EXPECT_THAT(text, HasSubstr("wideep:kv_leases_granted_total{model_name=\"m\",engine=\"0\"} 2"));
}

}  // namespace
}  // namespace wideep::kv
