#include "cmd/rank_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::cmd {
namespace {

MetricLabels with(MetricLabels labels, std::string_view name, std::string value) {
  labels.emplace_back(name, std::move(value));
  return labels;
}

// A counter that follows a number which only grows.
struct Follower {
  Counter* counter = nullptr;
  uint64_t last = 0;

  void follow(uint64_t now) {
    if (now > last) counter->add(now - last);
    last = std::max(last, now);
  }
};

}  // namespace

// Those of a group are empty if there is none.
struct RankMetrics::Series {
  struct Peer {
    RankId rank{};
    Gauge* silence = nullptr;
    Follower rows;
    Follower bytes;
  };

  Series(EngineHost& host, MetricsRegistry& registry, const MetricLabels& labels) {
    const auto weight_bytes = [&](const char* kind, int64_t bytes) {
      registry
          .gauge("wideep:weight_bytes", "Weights in this rank's memory.",
                 with(labels, "kind", kind))
          .set(static_cast<double>(bytes));
    };
    weight_bytes("experts", host.model().expert_bytes());
    weight_bytes("other", host.model().other_bytes());
    if (host.group() != nullptr) add_group(*host.group(), host.model().config(), registry, labels);
  }

  void add_group(const ep::Group& group,
                 const model::ModelConfig& config,
                 MetricsRegistry& registry,
                 const MetricLabels& labels) {
    const fabric::Shape& shape = group.fabric().shape();
    registry.gauge("wideep:group_ranks", "Ranks that share the experts.", labels)
        .set(shape.num_ranks());
    registry.gauge("wideep:group_epoch", "Present membership of the group.", labels)
        .set(static_cast<double>(shape.epoch));
    wire_bytes.counter =
        &registry.counter("wideep:wire_bytes_total", "Bytes sent to other hosts.", labels);
    wire_frames.counter =
        &registry.counter("wideep:wire_frames_total", "Frames sent to other hosts.", labels);
    for (int32_t layer = 0; layer < group.placement().num_layers(); ++layer) {
      if (!config.is_moe(layer)) continue;
      const MetricLabels of_layer = with(labels, "layer", std::to_string(layer));
      layers[layer].counter = &registry.counter(
          "wideep:expert_rows_total", "Rows that this rank's experts computed.", of_layer);
      const auto own = group.placement().layer(LayerId{layer}).experts_of(group.fabric().rank());
      registry.gauge("wideep:local_experts", "Experts that live on this rank.", of_layer)
          .set(static_cast<double>(own.size()));
    }
    for (int32_t r = 0; r < shape.num_ranks(); ++r) {
      const MetricLabels peer = with(labels, "peer", std::to_string(r));
      const auto node = index(shape.node_of[static_cast<size_t>(r)]);
      registry
          .gauge("wideep:peer_info", "A rank of the group and how it is reached.",
                 with(with(peer, "node", std::to_string(node)), "transport",
                      std::string(group.fabric().peer_state(RankId{r}).transport)))
          .set(1);
      peers.push_back(
          {.rank = RankId{r},
           .silence = &registry.gauge("wideep:peer_silence_seconds",
                                      "Since a peer's last sign of life.", peer),
           .rows = {&registry.counter("wideep:dispatched_rows_total",
                                      "Rows sent to the experts of a rank.", peer)},
           .bytes = {&registry.counter("wideep:dispatched_bytes_total",
                                       "The same in bytes of the dispatch format.", peer)}});
    }
  }

  void update(const ep::Group& group, int64_t row_bytes) {
    const ep::ExpertLoad& load = group.exchange().load();
    const fabric::WireCounters wire = group.fabric().wire();
    wire_bytes.follow(wire.bytes_sent);
    wire_frames.follow(wire.frames_sent);
    const int32_t num_slots = group.placement().slots_per_rank_max();
    for (auto& [layer, rows] : layers) {
      int64_t sum = 0;
      for (int32_t slot = 0; slot < num_slots; ++slot)
        sum += load.computed(LayerId{layer}, SlotId{slot});
      rows.follow(static_cast<uint64_t>(sum));
    }
    for (Peer& peer : peers) {
      int64_t sum = 0;
      for (const auto& [layer, rows] : layers)
        sum += load.sent(LayerId{layer}, peer.rank);
      peer.rows.follow(static_cast<uint64_t>(sum));
      peer.bytes.follow(static_cast<uint64_t>(sum * row_bytes));
      peer.silence->set(
          std::chrono::duration<double>(group.fabric().peer_state(peer.rank).silence).count());
    }
  }

  Follower wire_bytes;
  Follower wire_frames;
  std::map<int32_t, Follower> layers;  // with experts
  std::vector<Peer> peers;             // this rank too: its own experts get rows as well
};

RankMetrics::RankMetrics(EngineHost& host, const MetricLabels& labels)
    : host_(host), series_(std::make_unique<Series>(host, registry_, labels)) {}

RankMetrics::~RankMetrics() = default;

void RankMetrics::render(std::string& out) {
  const std::scoped_lock lock(mutex_);
  if (host_.group() != nullptr) series_->update(*host_.group(), host_.dispatch_row_bytes());
  registry_.render(out);
}

}  // namespace wideep::cmd
