// An engine's side of KV transfer without an engine: a pool with recognisable contents, leases, and
// the outcomes of pulls. For tests and benchmarks.
#pragma once

#include "base/check.h"
#include "base/random.h"
#include "kv/kv_port.h"

#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace wideep::kv {

class TestPort : public KvPort {
 public:
  static constexpr std::chrono::seconds kPatience{60};

  TestPort(KvLayout layout,
           int64_t num_blocks,
           std::string model = "m",
           const Clock& clock = real_clock())
      : pool_(*BlockPool::create(std::move(layout), num_blocks, PoolMemory::kShared)),
        model_(std::move(model)),
        leases_(clock, {.blocks_max = num_blocks}, [this](LeaseId id) { lease_ended(id); }) {}

  // Two groups, so that a pull must look at both.
  static KvLayout two_groups(int64_t token_bytes = 24) {
    return {
        .groups = {{.name = "a", .num_layers = 3, .token_bytes = token_bytes, .block_tokens = 16},
                   {.name = "b", .num_layers = 1, .token_bytes = 8, .block_tokens = 16}}};
  }

  const BlockPool& kv_pool() const override { return *pool_; }

  std::string kv_identity() const override {
    return identity_text(model_, "numbers", pool_->layout());
  }

  LeaseTable& leases() override { return leases_; }

  void set_kv_source(KvSource* source) override { source_ = source; }

  void pull_ended(PullOutcome outcome) override {
    const std::scoped_lock lock(mutex_);
    outcomes_.push_back(std::move(outcome));
    changed_.notify_all();
  }

  KvSource& source() { return *source_; }

  BlockPool& pool() { return *pool_; }

  std::vector<BlockId> take(int64_t count) {
    std::vector<BlockId> blocks;
    WD_CHECK(pool_->take(count, blocks, [](BlockId) {}).has_value());
    return blocks;
  }

  // Fills blocks with bytes that depend on the seed.
  void fill(const std::vector<BlockId>& blocks, uint64_t seed) {
    for (size_t i = 0; i < blocks.size(); ++i)
      for (size_t group = 0; group < pool_->layout().groups.size(); ++group) {
        uint64_t counter = 0;
        for (std::byte& byte : pool_->memory(group, blocks[i]))
          byte = static_cast<std::byte>(random_bits(seed + i, counter++, group));
      }
  }

  // A lease of filled blocks, as the engine grants it.
  api::KvTicket lease(const std::vector<BlockId>& blocks) {
    api::KvTicket ticket{.request_id = "r"};
    ticket.prompt_hash = sha256(std::as_bytes(std::span("prompt")));
    ticket.num_tokens = static_cast<int64_t>(blocks.size()) * pool_->block_tokens();
    for (const BlockId block : blocks)
      ticket.blocks.push_back({block, static_cast<uint32_t>(pool_->generation(block))});
    const auto lease = leases_.grant({.prompt_hash = ticket.prompt_hash,
                                      .num_tokens = ticket.num_tokens,
                                      .blocks = ticket.blocks});
    WD_CHECK(lease.has_value());
    ticket.lease_id = index(*lease);
    return ticket;
  }

  PullOutcome wait_for_pull() {
    std::unique_lock lock(mutex_);
    WD_CHECK(changed_.wait_for(lock, kPatience, [&] { return !outcomes_.empty(); }));
    PullOutcome outcome = std::move(outcomes_.front());
    outcomes_.erase(outcomes_.begin());
    return outcome;
  }

  // Until that many leases have ended.
  void wait_for_ended_leases(size_t count) {
    std::unique_lock lock(mutex_);
    WD_CHECK(changed_.wait_for(lock, kPatience, [&] { return num_ended_ >= count; }));
  }

  size_t num_ended_leases() {
    const std::scoped_lock lock(mutex_);
    return num_ended_;
  }

  bool holds_the_same(const std::vector<BlockId>& own,
                      const TestPort& other,
                      const std::vector<BlockId>& others) const {
    for (size_t i = 0; i < own.size(); ++i)
      for (size_t group = 0; group < pool_->layout().groups.size(); ++group) {
        const auto a = pool_->memory(group, own[i]);
        const auto b = other.pool_->memory(group, others[i]);
        if (std::memcmp(a.data(), b.data(), a.size()) != 0) return false;
      }
    return true;
  }

 private:
  void lease_ended(LeaseId) {
    const std::scoped_lock lock(mutex_);
    ++num_ended_;
    changed_.notify_all();
  }

  std::unique_ptr<BlockPool> pool_;
  const std::string model_;
  KvSource* source_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<PullOutcome> outcomes_;
  size_t num_ended_ = 0;
  LeaseTable leases_;
};

}  // namespace wideep::kv
