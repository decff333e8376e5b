#include "cmd/expert_load.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

namespace wideep::cmd {
namespace {

Json expert_load_alone(const EngineHost& host) {
  const model::ModelConfig& config = host.model().config();
  if (config.num_experts() == 0) return {};
  const ep::ExpertLoad& load = host.local()->load();
  const auto placement = ep::Placement::linear(
      load.num_layers(), static_cast<int32_t>(config.num_experts()), /*num_ranks=*/1);
  Json document = load.to_json(placement, RankId{0}, host.dispatch_row_bytes());
  document.set("rank", host.options().rank.number);
  return document;
}

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

// Rows that each rank has computed, [rank], by layer.
std::map<int64_t, std::vector<int64_t>> rows_by_layer(const std::vector<RankLoad>& loads) {
  std::map<int64_t, std::vector<int64_t>> rows_of_layer;
  for (size_t r = 0; r < loads.size(); ++r) {
    for (const auto& [layer, rows] : loads[r].rows) {
      std::vector<int64_t>& of_ranks = rows_of_layer[layer];
      of_ranks.resize(loads.size());
      of_ranks[r] = rows;
    }
  }
  return rows_of_layer;
}

// Rows sent to each rank, [rank], in all layers.
std::vector<int64_t> sent_in_all(const RankLoad& load) {
  std::vector<int64_t> to_rank;
  for (const auto& [layer, rows] : load.sent) {
    to_rank.resize(std::max(to_rank.size(), rows.size()));
    for (size_t r = 0; r < rows.size(); ++r)
      to_rank[r] += rows[r];
  }
  return to_rank;
}

}  // namespace

Json expert_load(const EngineHost& host) {
  const ep::Group* group = host.group();
  if (group == nullptr) return expert_load_alone(host);
  return group->exchange().load().to_json(group->placement(), group->fabric().rank(),
                                          host.dispatch_row_bytes());
}

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
  const auto rows_of_layer = rows_by_layer(loads);
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
    const std::vector<int64_t> to_rank = sent_in_all(load);
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
