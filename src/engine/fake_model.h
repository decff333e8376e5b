// Test doubles of the model and of the exchange.
//
// FakeModel is a deterministic toy whose logits are a hash of everything it finds in the KV blocks:
// each layer writes, for each token, a hash of all that the layer below holds at the positions up
// to it. A wrong block, a stale or foreign one, a wrong position or order gives other tokens.
//
// FakeAllToAll keeps the contract of begin_step (engine.h) for a group of one and can fail at any
// exchange; it is dead afterwards, as a lost epoch is.
#pragma once

#include "base/check.h"
#include "base/random.h"
#include "ep/all_to_all.h"
#include "model/model.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace wideep::engine {

class FakeAllToAll : public ep::AllToAll {
 public:
  // Exchange number `fail_at` fails (begin_step counts as one, each layer as one); -1: none.
  explicit FakeAllToAll(int64_t fail_at = -1) : fail_at_(fail_at) {}

  Result<ep::StepProgram> begin_step(const ep::StepWish& wish) override {
    WD_TRY(exchange());
    const bool is_first = asleep_;
    ep::StepProgram program{.tokens_max = is_first ? first_tokens_max : announced_.num_tokens,
                            .draft_depth = is_first ? 0 : announced_.draft_depth,
                            .anyone_has_work = is_first ? wish.has_work : announced_.has_work};
    announced_ = wish;
    asleep_ = !program.anyone_has_work;
    ++(asleep_ ? num_sleeps : num_programs);
    return program;
  }

  Status start_dispatch(LayerId, MatrixView<const float>, const ep::Routing&) override {
    return exchange();
  }

  Result<ep::ExpertBatch> next_experts() override { return ep::ExpertBatch{}; }

  Status finish(const ep::ExpertBatch&) override { return {}; }

  Status combine(MatrixView<const float>, MatrixView<float>) override { return {}; }

  int64_t tokens_max() const override { return first_tokens_max; }

  int64_t first_tokens_max = 1 << 20;
  int64_t num_programs = 0;
  int64_t num_sleeps = 0;

 private:
  Status exchange() {
    if (fail_at_ >= 0 && num_exchanges_++ >= fail_at_)
      return error(ErrorCode::kPeerLost, "rank 1 is gone");
    return {};
  }

  const int64_t fail_at_;
  int64_t num_exchanges_ = 0;
  bool asleep_ = true;
  ep::StepWish announced_;
};

struct FakeModelOptions {
  int64_t vocab_size = 256;
  int64_t max_positions = 1024;
  std::vector<TokenId> eos_tokens;
  float spread = 3;  // of the logits
  bool has_draft = false;
  bool by_role = false;  // a generated token's KV is not that of the same token in a prompt
};

class FakeModel : public model::Model {
 public:
  static constexpr int64_t kLayers = 3;  // two in the first cache group, one in the second

  explicit FakeModel(FakeModelOptions options = {}) : spread_(options.spread) {
    config_.model_type = "fake";
    config_.vocab_size = options.vocab_size;
    config_.max_positions = options.max_positions;
    config_.eos_tokens = options.eos_tokens;
    config_.num_layers = kLayers;
    config_.num_mtp_layers = options.has_draft ? 1 : 0;
    if (options.by_role) numeric_.attention_form = model::AttentionForm::kByRole;
  }

  const model::ModelConfig& config() const override { return config_; }

  const model::NumericConfig& numeric() const override { return numeric_; }

  kv::KvLayout kv_layout(int64_t block_tokens) const override {
    block_tokens_ = block_tokens;
    return {.groups = {{.name = "lower",
                        .num_layers = 2,
                        .token_bytes = sizeof(uint64_t),
                        .block_tokens = block_tokens},
                       {.name = "upper",
                        .num_layers = 1 + config_.num_mtp_layers,
                        .token_bytes = 2 * sizeof(uint64_t),
                        .block_tokens = block_tokens}}};
  }

  std::string fingerprint() const override { return "fake"; }

  Result<MatrixView<const float>> forward(const model::Batch& batch,
                                          ep::AllToAll& all_to_all) override {
    num_rows_max = std::max(num_rows_max, batch.num_rows());
    num_rows += batch.num_rows();
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (const model::SequenceRows& rows : batch.sequences)
        write_layer(layer, batch, rows);
      if (const Status status = all_to_all.start_dispatch(LayerId{0}, {}, {}); !status) {
        scribble(batch);
        return std::unexpected(status.error());
      }
    }
    logits_ = Matrix<float>(static_cast<int64_t>(batch.logit_rows.size()), config_.vocab_size);
    int64_t row = 0;
    for (const model::SequenceRows& rows : batch.sequences)
      for (int64_t i = 0; i < rows.count; ++i)
        if (row < logits_.rows() && batch.logit_rows[row] == rows.first_row + i)
          write_logits(fold(kLayers - 1, rows, rows.position + i), row++);
    WD_CHECK(row == logits_.rows());
    return MatrixView<const float>(logits_.view());
  }

  // Guesses right about half of the time, where the logits leave no doubt: it looks what forward
  // would give.
  Result<MatrixView<const float>> draft(const model::Batch& next,
                                        ep::AllToAll& all_to_all) override {
    WD_TRY(all_to_all.start_dispatch(LayerId{0}, {}, {}));
    logits_ = Matrix<float>(static_cast<int64_t>(next.logit_rows.size()), config_.vocab_size);
    int64_t row = 0;
    for (const model::SequenceRows& rows : next.sequences)
      for (int64_t i = 0; i < rows.count; ++i) {
        if (row == logits_.rows() || next.logit_rows[row] != rows.first_row + i) continue;
        const auto token = static_cast<uint64_t>(index(next.tokens[rows.first_row + i]));
        const uint64_t hash = fold_next(rows, rows.position + i, token);
        write_logits(hash % 2 == 0 ? hash : hash + 1, row++);
      }
    WD_CHECK(row == logits_.rows());
    return MatrixView<const float>(logits_.view());
  }

  void set_observer(model::ForwardObserver*) override {}

  int64_t expert_bytes() const override { return 0; }

  int64_t other_bytes() const override { return 0; }

  int64_t expert_bytes_read() const override { return 100 * num_rows; }

  int64_t num_rows = 0;      // computed so far
  int64_t num_rows_max = 0;  // in one step
  // A sequence whose tokens end with this one gets a NaN among its logits. It is never likely, so
  // that only a prompt or a bias brings it.
  TokenId poison{-1};

 private:
  std::byte* cell(int64_t layer, const model::SequenceRows& rows, int64_t position) const {
    const size_t group = layer < 2 ? 0 : 1;
    const int64_t token_bytes = group == 0 ? 8 : 16;
    WD_CHECK(position / block_tokens_ < static_cast<int64_t>(rows.block_data[group].size()));
    return rows.block_data[group][position / block_tokens_] +
           ((layer % 2) * block_tokens_ + position % block_tokens_) * token_bytes;
  }

  uint64_t load(int64_t layer, const model::SequenceRows& rows, int64_t position) const {
    uint64_t value = 0;
    std::memcpy(&value, cell(layer, rows, position), sizeof value);
    return value;
  }

  uint64_t fold(int64_t layer, const model::SequenceRows& rows, int64_t last) const {
    uint64_t hash = 0;
    for (int64_t position = 0; position <= last; ++position)
      hash = random_bits(hash, load(layer, rows, position));
    return hash;
  }

  // What the tokens of a role are computed with at a position.
  uint64_t key(int64_t position, bool is_prompt) const {
    const bool is_marked = numeric_.attention_form == model::AttentionForm::kByRole && is_prompt;
    return static_cast<uint64_t>(position) | (is_marked ? uint64_t{1} << 32 : 0);
  }

  // What fold() would give for the upper layer if `token`, generated, stood behind `last`.
  uint64_t fold_next(const model::SequenceRows& rows, int64_t last, uint64_t token) const {
    const uint64_t position = key(last + 1, false);
    uint64_t value = random_bits(token, position);
    for (int64_t layer = 1; layer < kLayers; ++layer)
      value = random_bits(random_bits(fold(layer - 1, rows, last), value), position);
    return random_bits(fold(kLayers - 1, rows, last), value);
  }

  void write_layer(int64_t layer, const model::Batch& batch, const model::SequenceRows& rows) {
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t position = rows.position + i;
      const auto token = static_cast<uint64_t>(index(batch.tokens[rows.first_row + i]));
      const uint64_t below = layer == 0 ? token : fold(layer - 1, rows, position);
      const uint64_t value = random_bits(below, key(position, i < rows.num_prompt));
      std::memcpy(cell(layer, rows, position), &value, sizeof value);
      if (TokenId{static_cast<int32_t>(token)} == poison) poisoned_ = true;
    }
  }

  // What a step leaves behind that failed half-way.
  void scribble(const model::Batch& batch) {
    for (const model::SequenceRows& rows : batch.sequences)
      for (int64_t layer = 0; layer < kLayers; ++layer)
        for (int64_t i = 0; i < rows.count; ++i)
          std::memset(cell(layer, rows, rows.position + i), 0xEE, sizeof(uint64_t));
  }

  void write_logits(uint64_t hash, int64_t row) {
    for (int64_t v = 0; v < config_.vocab_size; ++v) {
      const float uniform = random_uniform(hash, static_cast<uint64_t>(v));
      logits_(row, v) = (2 * uniform - 1) * spread_;
    }
    if (index(poison) >= 0) logits_(row, index(poison)) = -1e4F;
    if (poisoned_) logits_(row, config_.vocab_size / 2) = std::numeric_limits<float>::quiet_NaN();
    poisoned_ = false;
  }

  const float spread_;
  model::ModelConfig config_;
  model::NumericConfig numeric_;
  mutable int64_t block_tokens_ = 0;  // of the last layout that was asked for
  Matrix<float> logits_;
  bool poisoned_ = false;
};

}  // namespace wideep::engine
