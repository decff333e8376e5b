#include "ep/exchange_layout.h"

#include "base/check.h"
#include "base/rounding.h"

#include <algorithm>

namespace wideep::ep {
namespace {

constexpr int64_t kLine = 64;

int64_t padded(int64_t bytes) {
  return round_up(bytes, kLine);
}

}  // namespace

Status validate(const ExchangeShape& shape) {
  if (shape.hidden < 1 || shape.hidden > kHiddenMax)
    return invalid_argument("hidden size {}, 1 to {} allowed", shape.hidden, kHiddenMax);
  if (shape.top_k < 1 || shape.top_k > kTopKMax)
    return invalid_argument("top_k {}, 1 to {} allowed", shape.top_k, kTopKMax);
  if (shape.tokens_max < 1 || shape.tokens_max > kTokensMax)
    return invalid_argument("tokens_max {}, 1 to {} allowed", shape.tokens_max, kTokensMax);
  if (shape.formats.combine != math::RowFormat::kF32 &&
      shape.formats.combine != math::RowFormat::kBf16)
    return invalid_argument("combine format {}, f32 or bf16 allowed", name(shape.formats.combine));
  return {};
}

ExchangeLayout::ExchangeLayout(const ExchangeShape& shape, const std::vector<NodeId>& node_of)
    : nodes_{.node_of = node_of},
      top_k_(shape.top_k),
      tokens_max_(shape.tokens_max),
      entries_max_(shape.tokens_max * shape.top_k),
      row_bytes_(math::row_bytes(shape.formats.dispatch, shape.hidden)),
      result_bytes_(math::row_bytes(shape.formats.combine, shape.hidden)),
      list_bytes_(padded(entries_max_ * static_cast<int64_t>(sizeof(ListEntry)))) {
  WD_CHECK(validate(shape).has_value());
  const int32_t num_ranks = nodes_.num_ranks();
  int64_t regions = 0;  // of the rank that has most
  for (int32_t s = 0; s < num_ranks; ++s)
    for (int32_t r = 0; r < num_ranks; ++r)
      if (!nodes_.same_node(RankId{s}, RankId{r}))
        regions = std::max(regions, region_of(RankId{s}, RankId{r}).number + 1);
  results_ = tokens_max_ * row_bytes_;
  lists_ = results_ + entries_max_ * result_bytes_;
  regions_ = lists_ + num_ranks * list_bytes_;
  arena_bytes_ = regions_ + regions * tokens_max_ * row_bytes_;
}

Region ExchangeLayout::region_of(RankId source, RankId reader) const {
  const RankId owner = nodes_.door(source, reader);
  int64_t number = 0;
  for (int32_t s = 0; s < index(source); ++s)
    if (!nodes_.same_node(RankId{s}, reader) && nodes_.door(RankId{s}, reader) == owner) ++number;
  return {owner, number};
}

}  // namespace wideep::ep
