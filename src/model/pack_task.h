// Runs the tasks of a weight plan: reads a slice of the checkpoint, checks its values, packs it.
#pragma once

#include "base/result.h"
#include "model/matrix_reader.h"
#include "model/weight_plan.h"

#include <cstdint>
#include <span>
#include <vector>

namespace wideep::model {

// The memory that tasks work in; one per thread.
class Packer {
 public:
  explicit Packer(const PackShapes& shapes) : shapes_(shapes) {}

  // `out`: the bytes of task.place.
  Status run(const PackTask& task, std::span<std::byte> out);

 private:
  Status pack_panels(const PackTask& task, std::span<std::byte> out);
  Status pack_gate_up(const PackTask& task, RowRange rows, std::span<std::byte> out);
  Status pack_heads(const PackTask& task, std::span<std::byte> out);
  Status pack_expert(const PackTask& task, std::span<std::byte> out);
  Status copy_floats(const PackTask& task, std::span<std::byte> out);
  Status copy_rows(const PackTask& task, std::span<std::byte> out);

  PackShapes shapes_;
  MatrixReader reader_;
  MatrixReader second_reader_;
  std::vector<float> floats_;
  std::vector<float> transposed_;
};

// The header in front of a blob, checked against what the blob should be.
Status check_expert_blob(std::span<const std::byte> blob,
                         int64_t layer,
                         int64_t expert,
                         uint64_t layout);

}  // namespace wideep::model
