#include "ep/expert_load.h"

#include <optional>

namespace wideep::ep {
namespace {

Result<int64_t> number_in(const Json& object, std::string_view key, int64_t limit) {
  const Json* member = object.find(key);
  const std::optional<int64_t> value = member == nullptr ? std::nullopt : member->as_int();
  if (!value || *value < 0 || *value >= limit)
    return invalid_argument("expert load: '{}' must be an integer in [0, {})", key, limit);
  return *value;
}

Result<const Json::Array*> array_in(const Json& object, std::string_view key) {
  const Json* member = object.find(key);
  const Json::Array* array = member == nullptr ? nullptr : member->as_array();
  if (array == nullptr) return invalid_argument("expert load: '{}' must be an array", key);
  return array;
}

}  // namespace

ExpertLoad::ExpertLoad(int32_t num_layers, int32_t slots_per_rank, int32_t num_ranks)
    : num_layers_(num_layers),
      slots_per_rank_(slots_per_rank),
      num_ranks_(num_ranks),
      computed_(static_cast<size_t>(num_layers * slots_per_rank)),
      sent_(static_cast<size_t>(num_layers * num_ranks)) {}

Json ExpertLoad::to_json(const Placement& placement, RankId rank, int64_t row_bytes) const {
  Json layers{Json::Array{}};
  for (int32_t l = 0; l < num_layers_; ++l) {
    const LayerPlacement& layer = placement.layer(LayerId{l});
    Json experts{Json::Array{}};
    bool any = false;
    int32_t slot = 0;
    for (const ExpertId expert : layer.experts_of(rank)) {
      const int64_t rows = computed(LayerId{l}, SlotId{slot});
      any |= rows > 0;
      experts.append(Json::Object{{"expert", index(expert)}, {"slot", slot++}, {"rows", rows}});
    }
    Json sent_to{Json::Array{}};
    for (int32_t r = 0; r < num_ranks_; ++r) {
      any |= sent(LayerId{l}, RankId{r}) > 0;
      sent_to.append(sent(LayerId{l}, RankId{r}));
    }
    if (!any) continue;
    layers.append(
        Json::Object{{"layer", l}, {"experts", std::move(experts)}, {"sent", std::move(sent_to)}});
  }
  return Json::Object{
      {"rank", index(rank)}, {"row_bytes", row_bytes}, {"layers", std::move(layers)}};
}

Result<std::vector<std::vector<double>>> parse_expert_load(std::span<const Json> documents,
                                                           int32_t num_layers,
                                                           int32_t num_experts) {
  std::vector load(static_cast<size_t>(num_layers),
                   std::vector<double>(static_cast<size_t>(num_experts)));
  for (const Json& document : documents) {
    WD_ASSIGN_OR_RETURN(const Json::Array* layers, array_in(document, "layers"));
    for (const Json& layer : *layers) {
      WD_ASSIGN_OR_RETURN(const int64_t l, number_in(layer, "layer", num_layers));
      WD_ASSIGN_OR_RETURN(const Json::Array* experts, array_in(layer, "experts"));
      for (const Json& entry : *experts) {
        WD_ASSIGN_OR_RETURN(const int64_t e, number_in(entry, "expert", num_experts));
        WD_ASSIGN_OR_RETURN(const int64_t rows, number_in(entry, "rows", INT64_MAX));
        load[static_cast<size_t>(l)][static_cast<size_t>(e)] += static_cast<double>(rows);
      }
    }
  }
  return load;
}

}  // namespace wideep::ep
