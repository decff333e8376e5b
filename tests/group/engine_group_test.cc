// Engines of a group over shared memory and TCP, each with its share of the experts and its own
// loop: requests come to any rank at any time, ranks without any take part, everybody sleeps in
// between, and every request gives what it gives on one rank alone.
#include "engine/engine_loop.h"
#include "engine_plan.h"
#include "fabric/group_fabric.h"
#include "fabric/test_links.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <future>
#include <thread>

namespace wideep {
namespace {

constexpr auto kLong = std::chrono::minutes(2);

class Rank {
 public:
  Status join(const Plan& plan, RankId id, fabric::LocalPeers local, fabric::NodeLinks links) {
    WD_ASSIGN_OR_RETURN(fabric_,
                        fabric::GroupFabric::create(
                            plan.shape, id, std::move(local), std::move(links),
                            {.wait = fabric::WaitPolicy::for_node(plan.shape.num_ranks(), 1),
                             .liveness_deadline = std::chrono::seconds(30)}));
    const model::LoadOptions load = load_options_of(plan, id);
    WD_ASSIGN_OR_RETURN(model_, model::load_model(folder(plan.set), pool_, load));
    WD_ASSIGN_OR_RETURN(exchange_, ep::FabricAllToAll::create(*fabric_, plan.placement,
                                                              math::kernels(plan.numeric.isa),
                                                              pool_, plan.exchange));
    WD_ASSIGN_OR_RETURN(engine_,
                        engine::Engine::create(*model_, &engine::byte_tokenizer(), real_clock(),
                                               engine_options(plan.speculate)));
    return {};
  }

  void start() {
    loop_.emplace(
        *engine_, *exchange_, real_clock(),
        engine::EngineLoopOptions{.on_step = [this](const engine::EngineStats&) { ++num_steps; },
                                  .sleep = [this](TimePoint until) -> Result<bool> {
                                    WD_TRY(exchange_->sleep_until(until));
                                    return exchange_->is_open();
                                  },
                                  .wake = [this] { exchange_->wake(); }});
  }

  engine::Engine& engine() { return *engine_; }

  engine::EngineLoop& loop() { return *loop_; }

  std::atomic<int64_t> num_steps = 0;

 private:
  ThreadPool pool_{{.num_threads = 1}};
  std::unique_ptr<fabric::GroupFabric> fabric_;
  std::unique_ptr<model::DecoderModel> model_;
  std::unique_ptr<ep::FabricAllToAll> exchange_;
  std::unique_ptr<engine::Engine> engine_;
  std::optional<engine::EngineLoop> loop_;
};

class Group {
 public:
  // The plan must outlive the group.
  explicit Group(const Plan& plan) {
    auto local = *fabric::hand_over_in_process(plan.shape);
    const fabric::TestListeners listeners(plan.shape.num_ranks());
    for (size_t r = 0; r < plan.nodes.size(); ++r)
      ranks_.push_back(std::make_unique<Rank>());
    std::atomic<int> num_joined = 0;
    std::vector<std::jthread> threads;
    for (size_t r = 0; r < ranks_.size(); ++r)
      threads.emplace_back([&, r] {
        const RankId id{static_cast<int32_t>(r)};
        auto links = listeners.link(plan.shape, id, 1);
        ASSERT_TRUE(links) << links.error().message;
        const Status joined = ranks_[r]->join(plan, id, std::move(local[r]), *std::move(links));
        ASSERT_TRUE(joined) << joined.error().message;
        ++num_joined;
      });
    threads.clear();
    is_ready_ = num_joined == static_cast<int>(ranks_.size());
    if (!is_ready_) return;
    for (const auto& rank : ranks_)
      rank->start();
  }

  // Ranks say goodbye to each other at the same time.
  ~Group() {
    if (is_ready_)
      for (const auto& rank : ranks_)
        rank->loop().stop();
    std::vector<std::jthread> threads;
    for (auto& rank : ranks_)
      threads.emplace_back([&] { rank.reset(); });
  }

  bool is_ready() const { return is_ready_; }

  Rank& rank(size_t r) { return *ranks_[r]; }

  size_t size() const { return ranks_.size(); }

  // Nobody has work any more, and all have agreed on it.
  bool falls_asleep() {
    const TimePoint deadline = real_clock().now() + kLong;
    for (const auto& rank : ranks_)
      while (rank->engine().has_work()) {
        if (real_clock().now() > deadline) return false;
        std::this_thread::yield();
      }
    return true;
  }

  std::future<Outcome> submit(size_t r, Request request) {
    struct Pending {
      Outcome outcome;
      std::promise<Outcome> promise;
    };

    auto pending = std::make_shared<Pending>();  // shared: a sink must be copyable
    auto future = pending->promise.get_future();
    const auto id = ranks_[r]->engine().submit(std::move(request),
                                               [pending](const engine::RequestEvent& event) {
                                                 pending->outcome.add(event);
                                                 if (event.finish)
                                                   pending->promise.set_value(pending->outcome);
                                               });
    EXPECT_TRUE(id) << id.error().message;
    return future;
  }

 private:
  std::vector<std::unique_ptr<Rank>> ranks_;
  bool is_ready_ = false;
};

void expect_same_tokens(const Plan& plan) {
  SCOPED_TRACE(fmt::format("{} on {} ranks", plan.set, plan.nodes.size()));
  const std::vector<Request> all = requests(plan.config.vocab_size);
  const std::vector<Outcome> expected = alone(plan, all);
  Group group(plan);
  ASSERT_TRUE(group.is_ready());
  Random random(plan.nodes.size());
  for (int wave = 0; wave < 3; ++wave) {
    std::vector<std::future<Outcome>> futures;
    for (const Request& request : all) {
      // The last wave is all on one rank: the others only serve their experts.
      const size_t r = wave == 2 ? group.size() - 1 : random.below(group.size());
      futures.push_back(group.submit(r, request));
    }
    for (size_t i = 0; i < futures.size(); ++i) {
      ASSERT_EQ(futures[i].wait_for(kLong), std::future_status::ready) << "request " << i;
      EXPECT_EQ(futures[i].get(), expected[i]) << "wave " << wave << ", request " << i;
    }
    ASSERT_TRUE(group.falls_asleep());
  }
  int64_t num_accepted = 0;
  for (size_t r = 0; r < group.size(); ++r) {
    EXPECT_FALSE(group.rank(r).loop().failure());
    const engine::EngineStats stats = group.rank(r).engine().stats();
    EXPECT_EQ(stats.num_kv_blocks_free, stats.num_kv_blocks);
    num_accepted += stats.num_accepted_tokens;
  }
  if (plan.speculate) {
    EXPECT_GT(num_accepted, 0);
  }
}

TEST(EngineGroup, GivesTheTokensOfOneRankOnOneNode) {
  expect_same_tokens(plan_of("dsv3-tiny-bf16", {0, 0}, false));
  expect_same_tokens(plan_of("dsv3-tiny-fp8", {0, 0, 0}, false));
}

TEST(EngineGroup, GivesTheTokensOfOneRankAcrossNodes) {
  expect_same_tokens(plan_of("qwen3moe-tiny-bf16", {0, 1, 1}, false));
}

TEST(EngineGroup, GivesTheTokensOfOneRankWithSpeculation) {
  expect_same_tokens(plan_of("dsv3-tiny-mtp", {0, 0}, true));
  expect_same_tokens(plan_of("dsv3-tiny-mtp", {0, 1, 1}, true));
}

TEST(EngineGroup, StepsNoMoreOnceItSleeps) {
  const Plan plan = plan_of("dsv3-tiny-mtp", {0, 0}, false);
  Group group(plan);
  ASSERT_TRUE(group.is_ready());
  auto future = group.submit(0, engine::sampled_request(1, 10, 3));
  ASSERT_EQ(future.wait_for(kLong), std::future_status::ready);
  ASSERT_TRUE(group.falls_asleep());
  // The step that fell asleep may report late; a group that does not sleep steps all the time.
  const TimePoint give_up = real_clock().now() + kLong;
  int64_t before = -1;
  while (before != group.rank(0).num_steps && real_clock().now() < give_up) {
    before = group.rank(0).num_steps;
    poll(nullptr, 0, 300);
  }
  EXPECT_EQ(group.rank(0).num_steps, before);
  EXPECT_FALSE(group.rank(1).engine().has_work());
}

}  // namespace
}  // namespace wideep
