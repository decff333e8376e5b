#include "cmd/rank_metrics.h"

#include "math/formats.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::cmd {
namespace {

MetricLabels with(MetricLabels labels, std::string_view name, std::string value) {
  labels.emplace_back(name, std::move(value));
  return labels;
}

int64_t dispatch_row_bytes(const EngineHost& host) {
  const model::Model& model = host.model();
  return math::row_bytes(model.numeric().dispatch_format, model.config().hidden_size);
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
  if (host_.group() != nullptr) series_->update(*host_.group(), dispatch_row_bytes(host_));
  registry_.render(out);
}

namespace {

Json expert_load_alone(const EngineHost& host) {
  const model::ModelConfig& config = host.model().config();
  if (config.num_experts() == 0) return {};
  const ep::ExpertLoad& load = host.local()->load();
  const auto placement = ep::Placement::linear(
      load.num_layers(), static_cast<int32_t>(config.num_experts()), /*num_ranks=*/1);
  Json document = load.to_json(placement, RankId{0}, dispatch_row_bytes(host));
  document.set("rank", host.options().rank.number);
  return document;
}

}  // namespace

Json expert_load(const EngineHost& host) {
  const ep::Group* group = host.group();
  if (group == nullptr) return expert_load_alone(host);
  return group->exchange().load().to_json(group->placement(), group->fabric().rank(),
                                          dispatch_row_bytes(host));
}

namespace {

// One rank's document, as far as the sums need it.
struct RankLoad {
  int64_t rank = 0;
  int64_t row_bytes = 0;
  std::map<int64_t, int64_t> rows;               // computed, by layer
  std::map<int64_t, std::vector<int64_t>> sent;  // by layer, [rank]
};

std::optional<int64_t> integer(const Json& object, std::string_view key) {
  const Json* member = object.find(key);
  return member == nullptr ? std::nullopt : member->as_int();
}

const Json::Array& array(const Json& object, std::string_view key) {
  static const Json::Array kNone;
  const Json* member = object.find(key);
  const Json::Array* items = member == nullptr ? nullptr : member->as_array();
  return items == nullptr ? kNone : *items;
}

std::optional<RankLoad> read_rank_load(const Json& document) {
  const auto rank = integer(document, "rank");
  const auto row_bytes = integer(document, "row_bytes");
  if (!rank || !row_bytes) return std::nullopt;
  RankLoad load{.rank = *rank, .row_bytes = *row_bytes, .rows = {}, .sent = {}};
  for (const Json& layer : array(document, "layers")) {
    const int64_t id = integer(layer, "layer").value_or(-1);
    for (const Json& expert : array(layer, "experts"))
      load.rows[id] += integer(expert, "rows").value_or(0);
    for (const Json& rows : array(layer, "sent"))
      load.sent[id].push_back(rows.as_int().value_or(0));
  }
  return load;
}

// Mean over maximum of the ranks' rows: 1 is perfect (vLLM's and SGLang's measure).
double balancedness(const std::vector<int64_t>& rows) {
  const int64_t most = rows.empty() ? 0 : std::ranges::max(rows);
  if (most == 0) return 1;
  const auto sum = static_cast<double>(std::accumulate(rows.begin(), rows.end(), int64_t{0}));
  return sum / static_cast<double>(rows.size()) / static_cast<double>(most);
}

Json to_array(const std::vector<int64_t>& values, int64_t factor = 1) {
  Json array{Json::Array{}};
  for (const int64_t value : values)
    array.append(value * factor);
  return array;
}

}  // namespace

Json merge_expert_load(const std::vector<std::string>& documents) {
  std::vector<RankLoad> loads;
  Json ranks{Json::Array{}};
  for (const std::string& text : documents) {
    auto document = parse_json(text);
    if (!document) continue;
    auto load = read_rank_load(*document);
    if (!load) continue;
    loads.push_back(*std::move(load));
    ranks.append(*std::move(document));
  }
  std::map<int64_t, std::vector<int64_t>> rows_of_layer;  // [rank]
  for (size_t r = 0; r < loads.size(); ++r) {
    for (const auto& [layer, rows] : loads[r].rows) {
      std::vector<int64_t>& of_ranks = rows_of_layer[layer];
      of_ranks.resize(loads.size());
      of_ranks[r] = rows;
    }
  }
  Json layers{Json::Array{}};
  double sum = 0;
  for (const auto& [layer, rows] : rows_of_layer) {
    const double even = balancedness(rows);
    sum += even;
    layers.append(Json::Object{{"layer", layer},
                               {"rows", to_array(rows)},
                               {"bytes", to_array(rows, loads.front().row_bytes)},
                               {"balancedness", even}});
  }
  Json sent{Json::Array{}};
  Json sent_bytes{Json::Array{}};
  for (const RankLoad& load : loads) {
    std::vector<int64_t> to_rank;
    for (const auto& [layer, rows] : load.sent) {
      to_rank.resize(std::max(to_rank.size(), rows.size()));
      for (size_t r = 0; r < rows.size(); ++r)
        to_rank[r] += rows[r];
    }
    sent.append(to_array(to_rank));
    sent_bytes.append(to_array(to_rank, load.row_bytes));
  }
  const double mean = rows_of_layer.empty() ? 1 : sum / static_cast<double>(rows_of_layer.size());
  return Json::Object{{"balancedness", mean},
                      {"layers", std::move(layers)},
                      {"sent", std::move(sent)},
                      {"sent_bytes", std::move(sent_bytes)},
                      {"ranks", std::move(ranks)}};
}

}  // namespace wideep::cmd
