// A step that ends at any layer and in any call of the exchange leaves no trace: engines and their
// KV outlive the epoch, a fresh fabric and a fresh exchange take over, and every request gives what
// it gives undisturbed.
#include "engine_plan.h"
#include "fabric/group_fabric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>

namespace wideep {
namespace {

enum class Call { kDispatch, kNextExperts, kFinish, kCombine };

// Where an epoch ends: this rank fails in this call, the n-th time it is made.
struct Abort {
  RankId victim{};
  Call call{};
  int number = 0;
};

// The exchange of one rank, which fails at a given place, as it does when a peer is lost.
class AbortingAllToAll final : public ep::AllToAll {
 public:
  AbortingAllToAll(ep::FabricAllToAll& inner, std::optional<Abort> abort)
      : inner_(inner), abort_(abort) {}

  Result<ep::StepProgram> begin_step(const ep::StepWish& wish) override {
    return inner_.begin_step(wish);
  }

  Status start_dispatch(LayerId layer,
                        MatrixView<const float> h,
                        const ep::Routing& routing) override {
    WD_TRY(check(Call::kDispatch));
    return inner_.start_dispatch(layer, h, routing);
  }

  Result<ep::ExpertBatch> next_experts() override {
    WD_TRY(check(Call::kNextExperts));
    return inner_.next_experts();
  }

  Status finish(const ep::ExpertBatch& batch) override {
    WD_TRY(check(Call::kFinish));
    return inner_.finish(batch);
  }

  Status combine(MatrixView<const float> shared, MatrixView<float> x) override {
    WD_TRY(check(Call::kCombine));
    return inner_.combine(shared, x);
  }

  int64_t tokens_max() const override { return inner_.tokens_max(); }

 private:
  Status check(Call call) {
    if (!abort_ || abort_->call != call || abort_->number-- > 0) return {};
    return error(ErrorCode::kPeerLost, "this test ends the epoch here");
  }

  ep::FabricAllToAll& inner_;
  std::optional<Abort> abort_;
};

// A rank that lives through all epochs.
class LastingRank {
 public:
  LastingRank(const Plan& plan, RankId id) : plan_(plan), id_(id) {
    model_ = *model::load_model(folder(plan.set), pool_, load_options_of(plan, id));
    engine_ = *engine::Engine::create(*model_, &engine::byte_tokenizer(), real_clock(),
                                      engine_options(plan.speculate));
  }

  // Steps until nobody has work or the epoch ends; whether it ended.
  bool run_epoch(const fabric::Shape& shape,
                 fabric::LocalPeers local,
                 const std::optional<Abort>& abort) {
    auto fabric =
        *fabric::GroupFabric::create(shape, id_, std::move(local), {},
                                     {.wait = fabric::WaitPolicy::for_node(shape.num_ranks(), 1),
                                      .liveness_deadline = std::chrono::seconds(30)});
    const auto inner = *ep::FabricAllToAll::create(
        *fabric, plan_.placement, math::kernels(plan_.numeric.isa), pool_, plan_.exchange);
    AbortingAllToAll exchange(*inner, abort && abort->victim == id_ ? abort : std::nullopt);
    engine_->wake();
    while (engine_->has_work())
      if (!engine_->step(exchange)) return true;
    return false;
  }

  engine::Engine& engine() { return *engine_; }

 private:
  const Plan& plan_;
  const RankId id_;
  ThreadPool pool_{{.num_threads = 1}};
  std::unique_ptr<model::DecoderModel> model_;
  std::unique_ptr<engine::Engine> engine_;
};

// Every call of every layer on every rank, in the first, second or third step of its epoch.
std::vector<Abort> all_aborts(const Plan& plan) {
  int layers = 0;
  for (int32_t layer = 0; layer < plan.config.num_layers; ++layer)
    layers += plan.config.is_moe(layer) ? 1 : 0;
  std::vector<Abort> aborts;
  for (int layer = 0; layer < layers; ++layer)
    for (const Call call : {Call::kDispatch, Call::kNextExperts, Call::kFinish, Call::kCombine})
      for (int32_t r = 0; r < static_cast<int32_t>(plan.nodes.size()); ++r) {
        const int step = static_cast<int>(aborts.size()) % 3;
        aborts.push_back({RankId{r}, call, step * layers + layer});
      }
  return aborts;
}

bool run_epoch(const Plan& plan,
               uint64_t epoch,
               std::vector<std::unique_ptr<LastingRank>>& ranks,
               const std::optional<Abort>& abort) {
  fabric::Shape shape = plan.shape;
  shape.epoch = epoch;
  auto local = *fabric::hand_over_in_process(shape);
  std::atomic<int> num_ended = 0;
  std::vector<std::jthread> threads;
  for (size_t r = 0; r < ranks.size(); ++r)
    threads.emplace_back([&, r] {
      if (ranks[r]->run_epoch(shape, std::move(local[r]), abort)) ++num_ended;
    });
  threads.clear();
  EXPECT_TRUE(num_ended == 0 || num_ended == static_cast<int>(ranks.size()));
  return num_ended > 0;
}

TEST(EngineAbort, AtEveryLayerAndCallLeavesNoTrace) {
  const Plan plan = plan_of("dsv3-tiny-bf16", {0, 0}, false);
  std::vector<Request> all = requests(plan.config.vocab_size);
  for (Request& request : all)
    request.stop.max_tokens += 12;  // enough steps for all epochs
  const std::vector<Outcome> expected = alone(plan, all);
  std::vector<std::unique_ptr<LastingRank>> ranks;
  for (int32_t r = 0; r < 2; ++r)
    ranks.push_back(std::make_unique<LastingRank>(plan, RankId{r}));
  std::vector<Outcome> outcomes(all.size());
  for (size_t i = 0; i < all.size(); ++i)
    ASSERT_TRUE(ranks[i % 2]->engine().submit(
        all[i], [&outcomes, i](const engine::RequestEvent& event) { outcomes[i].add(event); }));
  uint64_t epoch = 1;
  int64_t num_aborted = 0;
  for (const Abort& abort : all_aborts(plan))
    num_aborted += run_epoch(plan, epoch++, ranks, abort) ? 1 : 0;
  EXPECT_EQ(num_aborted, std::ssize(all_aborts(plan)));  // else there was too little to do
  EXPECT_FALSE(run_epoch(plan, epoch, ranks, std::nullopt));
  for (size_t i = 0; i < all.size(); ++i)
    EXPECT_EQ(outcomes[i], expected[i]) << "request " << i;
  for (const auto& rank : ranks) {
    const engine::EngineStats stats = rank->engine().stats();
    EXPECT_EQ(stats.num_failed_steps, num_aborted);
    EXPECT_EQ(stats.num_kv_blocks_free, stats.num_kv_blocks);
  }
}

}  // namespace
}  // namespace wideep
