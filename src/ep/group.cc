#include "ep/group.h"

namespace wideep::ep {

std::string describe(const ExchangeOptions& options, const Placement& placement) {
  const ExchangeShape& shape = options.shape;
  return fmt::format(
      "hidden {}, top_k {}, tokens_max {}, dispatch {}, input {}, combine {}, low latency up to "
      "{}, "
      "placement {:016x}",
      shape.hidden, shape.top_k, shape.tokens_max, name(shape.formats.dispatch),
      name(shape.formats.input), name(shape.formats.combine), options.low_latency_tokens_max,
      placement.hash());
}

Result<std::unique_ptr<Group>> Group::join(const GroupOptions& options,
                                           Placement placement,
                                           const math::Kernels& kernels,
                                           ThreadPool& pool) {
  WD_TRY(validate(options.exchange.shape));
  auto group = std::make_unique<Group>(Checked{}, std::move(placement));
  fabric::JoinOptions join = options.join;
  join.num_channels = kNumChannels;
  join.rules += fmt::format("{}{}", join.rules.empty() ? "" : "; ",
                            describe(options.exchange, group->placement_));
  const auto arena_bytes = [&](const std::vector<NodeId>& node_of) {
    return ExchangeLayout(options.exchange.shape, node_of).arena_bytes();
  };
  WD_ASSIGN_OR_RETURN(group->fabric_, fabric::join(join, arena_bytes));
  WD_ASSIGN_OR_RETURN(group->exchange_, FabricAllToAll::create(*group->fabric_, group->placement_,
                                                               kernels, pool, options.exchange));
  return group;
}

}  // namespace wideep::ep
