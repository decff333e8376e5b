#include "engine/inbox.h"

#include "engine/test_engine.h"

#include <gtest/gtest.h>

#include <thread>

namespace wideep::engine {
namespace {

std::unique_ptr<Generation> generation_of(int64_t id, int64_t num_tokens) {
  Request request = sampled_request(static_cast<uint64_t>(id), num_tokens, 4);
  auto sequence = std::make_unique<Sequence>(SequenceId{id}, std::move(request), 1000,
                                             BlockNaming{api::block_hash_root("m", "n", "")});
  return *Generation::create(std::move(sequence), nullptr, {}, [](const RequestEvent&) {});
}

TEST(Inbox, CountsARequestUntilItLeavesTheQueue) {
  Inbox inbox({.requests_max = 2, .tokens_max = 1000});
  EXPECT_TRUE(inbox.submit(generation_of(1, 10)));
  EXPECT_TRUE(inbox.submit(generation_of(2, 20)));
  EXPECT_FALSE(inbox.submit(generation_of(3, 10)));
  EXPECT_EQ(inbox.drain().submitted.size(), 2U);
  EXPECT_FALSE(inbox.submit(generation_of(3, 10)));  // drained, but nobody has begun them
  EXPECT_EQ(inbox.num_queued_tokens(), 30);
  inbox.leave_queue(10);
  EXPECT_TRUE(inbox.submit(generation_of(3, 10)));
}

TEST(Inbox, TakesOneRequestHoweverLong) {
  Inbox inbox({.requests_max = 10, .tokens_max = 50});
  EXPECT_TRUE(inbox.submit(generation_of(1, 60)));
  EXPECT_FALSE(inbox.submit(generation_of(2, 1)));
}

TEST(Inbox, KeepsOneCancellationOfALiveRequestOnly) {
  Inbox inbox({});
  ASSERT_TRUE(inbox.submit(generation_of(1, 10)));
  for (int i = 0; i < 1000; ++i) {
    inbox.cancel(SequenceId{1});
    inbox.cancel(SequenceId{2});
  }
  EXPECT_EQ(inbox.drain().cancelled, (std::vector{SequenceId{1}}));
  ASSERT_TRUE(inbox.submit(generation_of(3, 10)));
  inbox.forget(SequenceId{3});
  inbox.cancel(SequenceId{3});
  EXPECT_TRUE(inbox.drain().cancelled.empty());
}

TEST(Inbox, RefusesEverythingOnceClosed) {
  Inbox inbox({});
  inbox.close();
  const Status refused = inbox.submit(generation_of(1, 10));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
}

TEST(Inbox, EndsAWaitWithAnyMail) {
  Inbox inbox({});
  for (int round = 0; round < 3; ++round) {
    std::thread waiter([&] { inbox.wait(std::chrono::hours(1)); });
    if (round == 0) EXPECT_TRUE(inbox.submit(generation_of(1, 10)));
    if (round == 1) inbox.cancel(SequenceId{1});
    if (round == 2) inbox.wake();
    waiter.join();
    EXPECT_TRUE(inbox.has_mail());
    inbox.drain();
    EXPECT_FALSE(inbox.has_mail());
  }
  inbox.wait(Duration::zero());
}

}  // namespace
}  // namespace wideep::engine
