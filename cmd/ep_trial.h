// One measured exchange of expert parallelism, whoever implements it: its shape, its inputs, what
// the experts do, what must come out, and the process that runs it at the bench's orders. Used by
// `wideep bench ep` for its own exchange and by bench/ep_mpi.cc for MPI's.
//
// What is timed on each rank: rows are encoded and leave, every expert writes one result row for
// each row it gets, results come home and are added in k order. What the experts do is next to
// nothing, so that the exchange is measured: a row is read once and a result written once.
#pragma once

#include "base/matrix.h"
#include "base/result.h"
#include "ep/all_to_all.h"
#include "ep/placement.h"
#include "fabric/unique_fd.h"
#include "math/kernels.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace wideep::cmd {

// Plain: travels between processes of this host as it lies in memory.
struct EpTrial {
  int32_t num_ranks = 2;
  int32_t num_nodes = 1;   // wideep only: ranks on different nodes talk over TCP
  int64_t num_tokens = 8;  // of each rank
  int64_t hidden = 2048;   // a multiple of 64
  int64_t top_k = 8;
  int32_t num_experts = 64;
  double zipf = 0;  // experts are chosen with weight 1 / popularity^zipf; 0: uniform
  ep::Mode mode = ep::Mode::kLowLatency;
  ep::RowFormats formats;
  uint64_t seed = 1;
  int32_t port = 0;    // where this trial's ranks meet
  uint64_t epoch = 1;  // of this trial
};

// What a rank brings, a function of (trial, rank).
struct EpInputs {
  EpInputs(const EpTrial& trial, RankId rank);

  ep::Routing routing() const;

  ep::LayerPlacement placement;
  Matrix<float> h;                // [num_tokens][hidden]
  std::vector<ExpertId> experts;  // [num_tokens][top_k], distinct within a token
  std::vector<float> weights;
};

struct EpRow {
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  bool is_far = false;              // the result will be read from memory
  const std::byte* next = nullptr;  // the row that comes next is asked for early; none: nullptr
};

// The expert: turns the row by 64 values for each expert number, so that a row that went to another
// expert shows. Where its results have another format than its rows, it takes the bits of a value
// or code, no more: as a model's experts do not decode rows, they multiply codes. All bits of a row
// show in its result, but for the lower half of f32 values. Thread: one at a time.
class EpExpert {
 public:
  EpExpert(const EpTrial& trial, const math::Kernels& kernels);
  void compute(ExpertId expert, const EpRow& row);

  // After rows that are far, before telling anybody.
  void finish() { kernels_.stream_fence(); }

 private:
  struct Values {  // of a row, [begin, end)
    int64_t begin = 0;
    int64_t end = 0;
  };

  void copy(std::span<const std::byte> from, std::byte* out, bool is_far);
  void convert_part(const std::byte* row, Values values, std::byte* out, bool is_far);
  void ask_for_next();

  const EpTrial trial_;
  const math::Kernels& kernels_;
  AlignedBuffer block_;              // of a result, before it is streamed
  uint16_t salt_ = 0;                // of the present row
  const std::byte* next_ = nullptr;  // what of the next has not been asked for
};

// What must be added to x for the first `num_tokens` of a rank's tokens, by the reference kernels
// and without any exchange.
Matrix<float> judge(const EpTrial& trial, const EpInputs& inputs, int64_t num_tokens);

// An implementation of the exchange on one rank.
class EpContestant {
 public:
  virtual ~EpContestant() = default;
  // Exchanges follow; called by all ranks.
  virtual Status begin() = 0;
  // x += what the experts made of the inputs.
  virtual Status exchange(const EpInputs& inputs, MatrixView<float> x) = 0;
};

using MakeContestant =
    std::function<Result<std::unique_ptr<EpContestant>>(const EpTrial& trial, RankId rank)>;

// What the bench tells all ranks, and what each answers.
struct EpOrder {
  enum class Kind : uint32_t {
    kPrepare,   // the trial; exchanges once and compares with the judge: hash of x
    kExchange,  // `count` times: seconds
    kCopy,      // copies as many rows as there are results in a large window, `count` times
    kQuit,
  };
  Kind kind{};
  int32_t count = 0;
  EpTrial trial;
};

struct EpAnswer {
  double seconds = 0;  // of one
  uint64_t hash = 0;
  char error[512] = {};  // empty: done
};

// Serves the bench at the other end of `socket` (SOCK_SEQPACKET, connected) until kQuit.
Status serve_trials(const fabric::UniqueFd& socket, RankId rank, const MakeContestant& make);

// The kernels of this machine.
const math::Kernels& ep_kernels();

}  // namespace wideep::cmd
