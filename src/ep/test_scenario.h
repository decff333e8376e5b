// A few steps of a model that is all experts, for tests of the exchange: token counts, routing and
// rows are a function of (seed, step, layer, rank), so that any exchange must give the same bits.
#pragma once

#include "base/random.h"
#include "ep/all_to_all.h"
#include "ep/placement.h"
#include "math/formats.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace wideep::ep {

struct Scenario {
  uint64_t seed = 1;
  int32_t num_ranks = 1;
  int32_t num_experts = 8;
  int64_t top_k = 2;
  int64_t hidden = 64;
  int32_t num_layers = 2;
  int32_t num_steps = 2;
  int64_t tokens_max = 8;  // of one rank; many bring fewer, some none
  RowFormats formats;
  bool always_full = false;  // every rank brings tokens_max in every step
};

inline uint64_t scenario_bits(const Scenario& s, uint64_t step, uint64_t what, uint64_t place) {
  return random_bits(random_bits(s.seed, step, what), place);
}

// A third of the ranks bring nothing.
inline int64_t scenario_tokens(const Scenario& s, int32_t step, RankId rank) {
  if (s.always_full) return s.tokens_max;
  const uint64_t bits =
      scenario_bits(s, static_cast<uint64_t>(step), 1, static_cast<uint64_t>(index(rank)));
  if (bits % 3 == 0) return 0;
  return static_cast<int64_t>((bits >> 8) % static_cast<uint64_t>(s.tokens_max + 1));
}

inline float scenario_value(uint64_t bits) {
  return static_cast<float>(static_cast<int64_t>(bits >> 40)) * 0x1.0p-22F - 2.0F;
}

inline uint64_t scenario_key(const Scenario& s, int32_t step, int32_t layer, RankId rank) {
  return scenario_bits(s, static_cast<uint64_t>(step), 3 + static_cast<uint64_t>(layer),
                       static_cast<uint64_t>(index(rank)));
}

// Distinct experts for each token, and weights.
inline void scenario_routing(const Scenario& s,
                             uint64_t key,
                             int64_t num_tokens,
                             std::vector<ExpertId>& experts,
                             std::vector<float>& weights) {
  Random random(key);
  experts.clear();
  weights.clear();
  for (int64_t t = 0; t < num_tokens; ++t) {
    while (std::ssize(experts) < (t + 1) * s.top_k) {
      // Two draws, the lower one: low experts are hot.
      const auto e =
          static_cast<int32_t>(std::min(random.below(static_cast<uint64_t>(s.num_experts)),
                                        random.below(static_cast<uint64_t>(s.num_experts))));
      if (std::find(experts.begin() + t * s.top_k, experts.end(), ExpertId{e}) != experts.end())
        continue;
      experts.push_back(ExpertId{e});
      weights.push_back(scenario_value(random.bits()));
    }
  }
}

// The expert: every output depends on the expert and on two inputs, so that a row that went to the
// wrong expert or was torn shows.
inline void scenario_expert(const Scenario& s,
                            ExpertId expert,
                            const std::byte* in,
                            std::byte* out) {
  std::vector<float> x(static_cast<size_t>(s.hidden));
  std::vector<float> y(x.size());
  math::reference_decode_row(s.formats.input, in, x);
  const float factor = 1.0F + 0.125F * static_cast<float>(index(expert));
  for (size_t i = 0; i < x.size(); ++i)
    y[i] = factor * x[i] + x[(i + 1) % x.size()];
  math::reference_encode_row(s.formats.combine, y, out);
}

// Called after each batch with (slot, rows): what a test may count.
using ScenarioObserver = std::function<void(LayerId, const ExpertRows&)>;

struct ScenarioRank {
  const Scenario& scenario;
  AllToAll& exchange;
  const Placement& placement;
  RankId rank{};
  ScenarioObserver observer;
};

inline Status scenario_layer(const ScenarioRank& r, LayerId layer, uint64_t key, Matrix<float>& x) {
  std::vector<ExpertId> experts;
  std::vector<float> weights;
  scenario_routing(r.scenario, key, x.rows(), experts, weights);
  Matrix<float> shared(x.rows(), x.cols());
  for (int64_t i = 0; i < x.rows() * x.cols(); ++i)
    shared.data()[i] = 0.5F * x.data()[i];
  WD_TRY(r.exchange.start_dispatch(
      layer, x.view(),
      {.num_tokens = x.rows(), .top_k = r.scenario.top_k, .experts = experts, .weights = weights}));
  for (;;) {
    WD_ASSIGN_OR_RETURN(const ExpertBatch batch, r.exchange.next_experts());
    if (batch.experts.empty()) break;
    for (const ExpertRows& rows : batch.experts) {
      const ExpertId expert = r.placement.layer(layer).expert_at({r.rank, rows.slot});
      for (size_t i = 0; i < rows.in.size(); ++i)
        scenario_expert(r.scenario, expert, rows.in[i], rows.out[i]);
      if (r.observer) r.observer(layer, rows);
    }
    WD_TRY(r.exchange.finish(batch));
  }
  // Every other layer has no shared expert.
  const MatrixView<const float> none;
  return r.exchange.combine(index(layer) % 2 == 0 ? shared.view() : none, x.view());
}

// All of it on one rank: every x of every step, one after the other.
inline Result<std::vector<float>> run_scenario(const Scenario& s,
                                               AllToAll& exchange,
                                               const Placement& placement,
                                               RankId rank,
                                               const ScenarioObserver& observer = {}) {
  std::vector<float> all;
  for (int32_t step = 0; step < s.num_steps; ++step) {
    const bool more = step + 1 < s.num_steps;
    WD_ASSIGN_OR_RETURN(
        const StepProgram program,
        exchange.begin_step(
            {.num_tokens = more ? scenario_tokens(s, step + 1, rank) : 0, .has_work = more}));
    if (!program.anyone_has_work)
      return error(ErrorCode::kDataLoss, "step {}: nobody has work", step);
    Matrix<float> x(scenario_tokens(s, step, rank), s.hidden);
    for (int64_t i = 0; i < x.rows() * x.cols(); ++i)
      x.data()[i] = scenario_value(
          scenario_bits(s, static_cast<uint64_t>(step), 2,
                        static_cast<uint64_t>(index(rank)) * 1'000'003 + static_cast<uint64_t>(i)));
    for (int32_t layer = 0; layer < s.num_layers; ++layer) {
      const uint64_t key = scenario_key(s, step, layer, rank);
      WD_TRY(scenario_layer({s, exchange, placement, rank, observer}, LayerId{layer}, key, x));
      // Keeps values in range over the layers.
      for (int64_t i = 0; i < x.rows() * x.cols(); ++i)
        x.data()[i] *= 0.0625F;
    }
    all.insert(all.end(), x.data(), x.data() + x.rows() * x.cols());
  }
  return all;
}

}  // namespace wideep::ep
