#include "cmd/expert_placement.h"

#include "base/file.h"
#include "base/json.h"
#include "base/rounding.h"
#include "ep/balance.h"
#include "ep/expert_load.h"

#include <algorithm>
#include <vector>

namespace wideep::cmd {
namespace {

constexpr int64_t kLoadFileBytesMax = 256 << 20;
constexpr std::string_view kEplbFlag = "--eplb-config";

using Load = std::vector<std::vector<double>>;  // [layer][expert]

// One rank's document, or that of a group with one for each rank.
Result<Load> read_load(const std::string& path, int32_t num_layers, int32_t num_experts) {
  WD_ASSIGN_OR_RETURN(const std::string text, read_file(path, kLoadFileBytesMax));
  const auto document = parse_json(text);
  if (!document) return with_context(document.error(), path);
  std::vector<Json> ranks{*document};
  if (const Json* all = document->find("ranks"); all != nullptr && all->is_array())
    ranks = *all->as_array();
  auto load = ep::parse_expert_load(ranks, num_layers, num_experts);
  if (!load) return with_context(load.error(), path);
  return load;
}

}  // namespace

Result<ep::Placement> choose_placement(const PlacementOptions& options,
                                       int32_t num_layers,
                                       int32_t num_experts,
                                       int32_t num_ranks) {
  if (options.load_file.empty() && options.num_redundant_experts == 0)
    return ep::Placement::linear(num_layers, num_experts, num_ranks);
  Load load(static_cast<size_t>(num_layers), std::vector<double>(static_cast<size_t>(num_experts)));
  if (!options.load_file.empty()) {
    WD_ASSIGN_OR_RETURN(load, read_load(options.load_file, num_layers, num_experts));
  }
  const int64_t wanted = num_experts + options.num_redundant_experts;
  const int64_t per_rank = divide_up(wanted, num_ranks);
  std::vector<ep::LayerPlacement> layers;
  for (std::vector<double>& experts : load) {
    // Nothing is known of this layer: all alike.
    if (std::ranges::all_of(experts, [](double rows) { return rows == 0; }))
      std::ranges::fill(experts, 1.0);
    WD_ASSIGN_OR_RETURN(ep::LayerPlacement layer,
                        ep::balance({.load = experts,
                                     .num_ranks = num_ranks,
                                     .num_slots = static_cast<int32_t>(per_rank * num_ranks)}));
    layers.push_back(std::move(layer));
  }
  return ep::Placement(std::move(layers));
}

Result<int64_t> parse_eplb_config(std::string_view json) {
  if (json.empty()) return 0;
  const auto config = parse_json(json);
  if (!config) return with_context(config.error(), kEplbFlag);
  if (!config->is_object()) return invalid_argument("{}: a JSON object is expected", kEplbFlag);
  for (const auto& [key, value] : *config->as_object()) {
    if (key != "num_redundant_experts")
      return invalid_argument("{}: '{}' is not implemented: experts stay where they are", kEplbFlag,
                              key);
  }
  const Json* count = config->find("num_redundant_experts");
  if (count == nullptr) return 0;
  const auto value = count->as_int();
  if (!value || *value < 0 || *value > ep::kExpertsMax)
    return invalid_argument("{}: num_redundant_experts {}: 0 to {} is expected", kEplbFlag,
                            count->dump(), ep::kExpertsMax);
  return *value;
}

}  // namespace wideep::cmd
