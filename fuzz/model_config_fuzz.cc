// modules: base model
// config.json and generation_config.json: an accepted config is one that sizes can be taken from.
#include "base/check.h"
#include "model/config.h"
#include "model/rope.h"
#include "model/tensor_names.h"

#include <algorithm>
#include <cmath>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(wideep::model::parse_generation_config(text));
  const auto config = wideep::model::parse_config(text);
  if (!config) return 0;
  WD_CHECK(config->num_layers > 0);
  WD_CHECK(config->router.top_k <= config->num_experts());
  WD_CHECK(std::isfinite(wideep::model::softmax_scale(config->rope, config->q_head_dim())));
  int visits = 0;
  const wideep::Status visited = wideep::model::for_each_tensor(
      *config, true, [&](const wideep::model::TensorSpec& spec) -> wideep::Status {
        WD_CHECK(spec.rows > 0);
        WD_CHECK(spec.cols >= 0);
        WD_CHECK(spec.rows * std::max<int64_t>(1, spec.cols) < int64_t{1} << 50);
        if (++visits < 1000) return {};
        return wideep::error(wideep::ErrorCode::kCancelled, "enough");
      });
  static_cast<void>(visited);
  return 0;
}
