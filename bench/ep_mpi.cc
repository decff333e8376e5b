// The opponent of `wideep bench ep`: the same exchange with MPI_Alltoall and MPI_Alltoallv, as good
// as the interface allows. Started by the bench through mpirun:
//
//   mpirun -n RANKS ep_mpi_bench NAME
//
// Dispatch: a token goes once to each rank that holds any of its experts, encoded by the same
// kernels, with the list of what shall be computed, packed by destination; byte counts by
// MPI_Alltoall, bytes by MPI_Alltoallv. Experts read rows where they arrived, grouped by expert.
// Combine: one row per (token, k) by MPI_Alltoallv into place, added in k order by the same kernel.
// What a rank sends to itself does not pass through MPI. All buffers are kept between exchanges.
#include "base/check.h"
#include "cmd/ep_group.h"
#include "cmd/ep_trial.h"

#include <fmt/format.h>
#include <mpi.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

namespace wideep::cmd {
namespace {

constexpr size_t kAlignment = 64;

size_t padded(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// What a rank wants from another, in front of the rows.
struct Wanted {
  uint32_t row = 0;  // of this message
  uint16_t slot = 0;
  uint16_t unused = 0;
};

// Bytes to or from every rank in one buffer that only grows.
struct Bundle {
  std::vector<int> counts;
  std::vector<int> offsets;
  AlignedBuffer bytes;

  explicit Bundle(int num_ranks)
      : counts(static_cast<size_t>(num_ranks)), offsets(static_cast<size_t>(num_ranks)) {}

  // After counts are set.
  void place() {
    std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
    const auto total = static_cast<size_t>(offsets.back() + counts.back());
    if (total <= bytes.size()) return;
    bytes = AlignedBuffer(total);
    bytes.prefault();
  }

  std::byte* of(size_t rank) { return bytes.data() + offsets[rank]; }
};

class MpiContestant final : public EpContestant {
 public:
  MpiContestant(const EpTrial& trial, RankId rank)
      : trial_(trial),
        rank_(subscript(rank)),
        num_ranks_(static_cast<size_t>(trial.num_ranks)),
        row_bytes_(math::row_bytes(trial.formats.dispatch, trial.hidden)),
        result_bytes_(math::row_bytes(trial.formats.combine, trial.hidden)),
        expert_(trial, ep_kernels()),
        to_(num_ranks_),
        out_(trial.num_ranks),
        in_(trial.num_ranks),
        results_out_(trial.num_ranks),
        results_in_(trial.num_ranks),
        by_slot_(static_cast<size_t>(trial.num_experts)),
        homes_(static_cast<size_t>(trial.num_tokens * trial.top_k)),
        row_of_(num_ranks_) {}

  Status begin() override {
    MPI_Barrier(MPI_COMM_WORLD);
    return {};
  }

  Status exchange(const EpInputs& inputs, MatrixView<float> x) override {
    list(inputs);
    pack(inputs);
    swap_counts();
    alltoallv(out_, in_);
    sort_by_expert();
    compute(inputs);
    alltoallv(results_out_, results_in_);
    add(inputs, x);
    return {};
  }

 private:
  struct Destination {
    std::vector<Wanted> wanted;
    std::vector<int64_t> tokens;  // by row of the message
  };

  // Who shall compute what; a token once per rank.
  void list(const EpInputs& inputs) {
    for (Destination& to : to_) {
      to.wanted.clear();
      to.tokens.clear();
    }
    for (size_t i = 0; i < inputs.experts.size(); ++i) {
      const ep::SlotAddress home = inputs.placement.replicas(inputs.experts[i]).front();
      Destination& to = to_[subscript(home.rank)];
      const auto token = static_cast<int64_t>(i) / trial_.top_k;
      if (to.tokens.empty() || to.tokens.back() != token) to.tokens.push_back(token);
      to.wanted.push_back({.row = static_cast<uint32_t>(to.tokens.size() - 1),
                           .slot = static_cast<uint16_t>(index(home.slot))});
    }
  }

  // Each row is encoded once, into the first message it goes with.
  void pack(const EpInputs& inputs) {
    for (size_t r = 0; r < num_ranks_; ++r) {
      out_.counts[r] = static_cast<int>(padded(to_[r].wanted.size() * sizeof(Wanted)) +
                                        to_[r].tokens.size() * static_cast<size_t>(row_bytes_));
    }
    out_.place();
    encoded_.assign(static_cast<size_t>(trial_.num_tokens), nullptr);
    for (size_t r = 0; r < num_ranks_; ++r) {
      std::byte* at = out_.of(r);
      const size_t list_bytes = to_[r].wanted.size() * sizeof(Wanted);
      std::memcpy(at, to_[r].wanted.data(), list_bytes);
      at += padded(list_bytes);
      for (const int64_t token : to_[r].tokens) {
        const std::byte*& first = encoded_[static_cast<size_t>(token)];
        if (first == nullptr) {
          ep_kernels().encode_row(trial_.formats.dispatch, inputs.h.row(token).data(),
                                  trial_.hidden, at);
          first = at;
        } else {
          std::memcpy(at, first, static_cast<size_t>(row_bytes_));
        }
        at += row_bytes_;
      }
    }
  }

  // How many bytes and how many results travel between whom.
  void swap_counts() {
    counts_out_.clear();
    for (size_t r = 0; r < num_ranks_; ++r) {
      counts_out_.push_back(out_.counts[r]);
      counts_out_.push_back(static_cast<int>(to_[r].wanted.size()));
    }
    counts_in_.resize(counts_out_.size());
    MPI_Alltoall(counts_out_.data(), 2, MPI_INT, counts_in_.data(), 2, MPI_INT, MPI_COMM_WORLD);
    for (size_t r = 0; r < num_ranks_; ++r) {
      in_.counts[r] = r == rank_ ? 0 : counts_in_[2 * r];
      results_out_.counts[r] =
          r == rank_ ? 0 : counts_in_[2 * r + 1] * static_cast<int>(result_bytes_);
      results_in_.counts[r] =
          static_cast<int>(to_[r].wanted.size()) * static_cast<int>(result_bytes_);
    }
    in_.place();
    results_out_.place();
    results_in_.place();
  }

  // What is for this rank itself stays where it is.
  void alltoallv(Bundle& from, Bundle& to) {
    std::vector<int>& sent = sent_ = from.counts;
    std::vector<int>& received = received_ = to.counts;
    sent[rank_] = received[rank_] = 0;
    MPI_Alltoallv(from.bytes.data(), sent.data(), from.offsets.data(), MPI_BYTE, to.bytes.data(),
                  received.data(), to.offsets.data(), MPI_BYTE, MPI_COMM_WORLD);
  }

  void sort_by_expert() {
    for (std::vector<EpRow>& work : by_slot_)
      work.clear();
    for (size_t r = 0; r < num_ranks_; ++r) {
      const std::byte* message = r == rank_ ? out_.of(r) : in_.of(r);
      std::byte* result = r == rank_ ? results_in_.of(r) : results_out_.of(r);
      const auto count = static_cast<size_t>(counts_in_[2 * r + 1]);
      const std::byte* rows = message + padded(count * sizeof(Wanted));
      for (size_t i = 0; i < count; ++i, result += result_bytes_) {
        Wanted wanted;
        std::memcpy(&wanted, message + i * sizeof wanted, sizeof wanted);
        by_slot_[wanted.slot].push_back({.in = rows + wanted.row * row_bytes_, .out = result});
      }
    }
  }

  void compute(const EpInputs& inputs) {
    const ep::LayerPlacement& placement = inputs.placement;
    for (int32_t slot = 0; slot < placement.slots_per_rank(); ++slot) {
      const ExpertId expert =
          placement.expert_at({RankId{static_cast<int32_t>(rank_)}, SlotId{slot}});
      const std::vector<EpRow>& rows = by_slot_[static_cast<size_t>(slot)];
      for (size_t i = 0; i < rows.size(); ++i) {
        EpRow row = rows[i];
        if (i + 1 < rows.size()) row.next = rows[i + 1].in;
        expert_.compute(expert, row);
      }
    }
  }

  // The i-th result of a rank answers the i-th of its list.
  void add(const EpInputs& inputs, MatrixView<float> x) {
    row_of_.assign(num_ranks_, 0);
    for (size_t i = 0; i < inputs.experts.size(); ++i) {
      const auto r = subscript(inputs.placement.replicas(inputs.experts[i]).front().rank);
      homes_[i] = results_in_.of(r) + row_of_[r]++ * result_bytes_;
    }
    const auto top_k = static_cast<size_t>(trial_.top_k);
    for (int64_t t = 0; t < trial_.num_tokens; ++t) {
      const size_t first = static_cast<size_t>(t) * top_k;
      ep_kernels().add_weighted_rows({.format = trial_.formats.combine,
                                      .rows = std::span(homes_).subspan(first, top_k),
                                      .weights = std::span(inputs.weights).subspan(first, top_k)},
                                     nullptr, trial_.hidden, x.row(t).data());
    }
  }

  const EpTrial trial_;
  const size_t rank_;
  const size_t num_ranks_;
  const int64_t row_bytes_;
  const int64_t result_bytes_;
  EpExpert expert_;
  std::vector<Destination> to_;
  Bundle out_;
  Bundle in_;
  Bundle results_out_;
  Bundle results_in_;
  std::vector<const std::byte*> encoded_;  // [num_tokens], where a row lies already
  std::vector<int> counts_out_;
  std::vector<int> counts_in_;
  std::vector<int> sent_;
  std::vector<int> received_;
  std::vector<std::vector<EpRow>> by_slot_;
  std::vector<const std::byte*> homes_;  // [num_tokens][top_k], where the results came
  std::vector<int64_t> row_of_;
};

int run(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  Status status = invalid_argument("ep_mpi_bench NAME: started by wideep bench ep");
  if (argc == 2) {
    const auto socket = EpGroup::call(argv[1], RankId{rank});
    status = socket ? serve_trials(*socket, RankId{rank},
                                   [](const EpTrial& trial,
                                      RankId self) -> Result<std::unique_ptr<EpContestant>> {
                                     return std::make_unique<MpiContestant>(trial, self);
                                   })
                    : std::unexpected(socket.error());
  }
  if (!status) fmt::print(stderr, "ep_mpi_bench: {}\n", status.error().message);
  MPI_Finalize();
  return status ? 0 : 1;
}

}  // namespace
}  // namespace wideep::cmd

int main(int argc, char** argv) {
  return wideep::cmd::run(argc, argv);
}
