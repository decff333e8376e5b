// The expected values of a golden folder.
#pragma once

#include "base/ids.h"
#include "base/result.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace wideep::model {

struct GoldenTensor {
  std::vector<int64_t> shape;
  bool is_ids = false;        // I32: compared exactly
  std::vector<float> values;  // ids as numbers: exact below 2^24

  int64_t rows() const { return shape.empty() ? 1 : shape.front(); }

  int64_t row_values() const {
    return rows() == 0 ? 0 : static_cast<int64_t>(values.size()) / rows();
  }
};

struct GoldenPrompt {
  std::vector<TokenId> input;                   // "promptP.input_ids"
  std::vector<TokenId> greedy;                  // "promptP.greedy_ids"
  std::map<std::string, GoldenTensor> tensors;  // names without "promptP."
};

// Reads folder/expected/golden.safetensors: prompt0, prompt1, … as long as there are.
Result<std::vector<GoldenPrompt>> load_golden_set(const std::string& folder);

}  // namespace wideep::model
