// What a load has to do: where every packed tensor lies in the arenas, and the tasks that fill them
// from the checkpoint. A task reads at most a slice of a matrix, so that memory stays bounded and
// threads share large tensors.
#pragma once

#include "model/matrix_reader.h"
#include "model/weights.h"

#include <array>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

namespace wideep::model {

enum class Arena : uint8_t { kDense, kExperts };

struct Place {
  Arena arena = Arena::kDense;
  int64_t offset = 0;
  int64_t bytes = 0;
};

struct PackTask {
  enum class Kind : uint8_t {
    kPanels,  // rows of one matrix into panels
    kGateUp,  // the same rows of gate and up into gate_up panels
    kHeads,  // kv_b into W_UK^T of every head, W_UV of every head and, if wanted, W_UK of every one
    kExpert,  // gate, up and down of one expert into its blob
    kFloats,  // a vector in f32
    kRows,    // rows of the embedding as they are
  };
  Kind kind = Kind::kPanels;
  std::vector<TensorSource> sources;
  RowRange rows;
  math::WeightFormat format = math::WeightFormat::kF32;
  Place place;

  int64_t layer = -1;  // kExpert
  int64_t expert = -1;

  // Bytes of the checkpoint it reads; tensors it completes.
  int64_t source_bytes = 0;
  int64_t num_tensors = 0;
};

// Shapes that tasks need besides their sources.
struct PackShapes {
  int64_t num_heads = 0;
  int64_t nope = 0;
  int64_t v = 0;
  uint64_t expert_layout = 0;
  bool expanded_prompts = false;
};

class WeightPlan {
 public:
  // Plans everything `options` call for, sets the views of `weights` except for their addresses.
  // `weights` must stay where it is until resolve().
  static Result<WeightPlan> make(const Checkpoint& checkpoint,
                                 const WeightOptions& options,
                                 ModelWeights& weights);

  // Points the views into the arenas of `weights`, which must have the planned sizes (checked).
  void resolve(ModelWeights& weights) const;

  int64_t dense_bytes() const { return dense_bytes_; }

  int64_t expert_bytes() const { return expert_bytes_; }

  const std::vector<PackTask>& tasks() const { return tasks_; }

  // What the arenas hold, in order: the units of the cache file.
  const std::vector<Place>& items() const { return items_; }

  const PackShapes& shapes() const { return shapes_; }

 private:
  friend class WeightPlanner;

  struct ByteView {
    std::span<const std::byte>* target;
    Place place;
  };

  struct FloatView {
    std::span<const float>* target;
    Place place;
  };

  int64_t dense_bytes_ = 0;
  int64_t expert_bytes_ = 0;
  std::vector<PackTask> tasks_;
  std::vector<Place> items_;
  std::vector<ByteView> byte_views_;
  std::vector<FloatView> float_views_;
  PackShapes shapes_;
};

// The format of a linear stored as `storage` when nothing else is asked for.
math::WeightFormat natural_format(Storage storage, math::Precision precision);

// The bytes in the arenas of `weights`.
std::span<std::byte> bytes_at(ModelWeights& weights, const Place& place);

}  // namespace wideep::model
