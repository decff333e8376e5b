#include "epp/endpoint_picker.h"

#include <algorithm>
#include <array>

namespace wideep::epp {
namespace {

constexpr std::string_view kObjectiveHeader = "x-llm-d-inference-objective";
constexpr std::string_view kObjectiveHeaderAlias = "x-gateway-inference-objective";

bool is_in_subset(const Endpoint& endpoint, const std::vector<std::string>& subset) {
  return std::ranges::any_of(subset, [&](const std::string& allowed) {
    return allowed == endpoint.host_port || allowed == endpoint.address.host;
  });
}

}  // namespace

EndpointPicker::EndpointPicker(PickerConfig config, const Clock& clock)
    : config_(std::move(config)), clock_(clock) {}

std::shared_ptr<const Snapshot> EndpointPicker::snapshot() const {
  const std::scoped_lock lock(mutex_);
  return snapshot_;
}

std::expected<Decision, Refusal> EndpointPicker::pick(const PickRequest& request,
                                                      const std::vector<std::string>* subset) {
  using Outcome = PickerMetrics::Outcome;
  const TimePoint begin = clock_.now();
  auto decision = decide(request, subset);
  const Outcome outcome = !decision                      ? Outcome::kRefused
                          : decision->prefill == nullptr ? Outcome::kDecodeOnly
                                                         : Outcome::kPrefillDecode;
  metrics_.on_pick(outcome, clock_.now() - begin);
  return decision;
}

std::expected<Decision, Refusal> EndpointPicker::decide(const PickRequest& request,
                                                        const std::vector<std::string>* subset) {
  PickContext context{.request = request, .snapshot = candidates(subset), .prefix = {}};
  if (context.snapshot->endpoints.empty()) {
    return std::unexpected(Refusal{503, "rejected-no-endpoints", "no endpoint is ready"});
  }
  if (is_sheddable(request) && saturation() >= 1) {
    return std::unexpected(
        Refusal{429, "rejected-saturated", "the pool is saturated and the request may be shed"});
  }
  Result<Decision> decision = config_.handler->decide(context, config_.profiles);
  if (!decision)
    return std::unexpected(Refusal{503, "rejected-no-endpoints", decision.error().message});
  for (const auto& index : config_.prefix_indexes) {
    index->on_routed(context, *decision->destinations.front().endpoint, "");
    if (decision->prefill != nullptr) index->on_routed(context, *decision->prefill, "prefill");
  }
  return std::move(*decision);
}

std::shared_ptr<const Snapshot> EndpointPicker::candidates(
    const std::vector<std::string>* subset) const {
  std::shared_ptr<const Snapshot> all = snapshot();
  if (subset == nullptr) return all;
  auto some = std::make_shared<Snapshot>();
  for (const Endpoint& endpoint : all->endpoints) {
    if (is_in_subset(endpoint, *subset)) some->endpoints.push_back(endpoint);
  }
  return some;
}

bool EndpointPicker::is_sheddable(const PickRequest& request) const {
  const std::string* name = request.header_value(kObjectiveHeader);
  if (name == nullptr) name = request.header_value(kObjectiveHeaderAlias);
  if (name == nullptr) return false;
  const auto objective = std::ranges::find(config_.objectives, *name, &Objective::name);
  return objective != config_.objectives.end() && objective->priority < 0;
}

double EndpointPicker::saturation() const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  if (now->endpoints.empty()) return 1;
  const SaturationOptions& limits = config_.saturation;
  double sum = 0;
  for (const Endpoint& endpoint : now->endpoints) {
    const EndpointMetrics& metrics = endpoint.metrics;
    const bool is_stale = clock_.now() - metrics.updated > limits.metrics_staleness;
    sum += is_stale ? 1.0
                    : std::max(metrics.waiting / limits.queue_depth_threshold,
                               metrics.kv_cache_usage / limits.kv_cache_util_threshold);
  }
  return sum / static_cast<double>(now->endpoints.size());
}

void EndpointPicker::render_metrics(std::string& out) {
  int64_t num_prefixes = 0;
  for (const auto& index : config_.prefix_indexes)
    num_prefixes += index->size();
  metrics_.render(*snapshot(), num_prefixes, out);
}

uint8_t role_bits(const Labels& labels) {
  static constexpr std::array<std::pair<std::string_view, uint8_t>, 7> kRoles = {{
      {"prefill", kPrefillRole},
      {"decode", kDecodeRole},
      {"encode", kEncodeRole},
      {"both", kPrefillRole | kDecodeRole},
      {"prefill-decode", kPrefillRole | kDecodeRole},
      {"encode-prefill", kEncodeRole | kPrefillRole},
      {"encode-prefill-decode", kEncodeRole | kPrefillRole | kDecodeRole},
  }};
  const auto label = labels.find(kRoleLabel);
  if (label == labels.end()) return kNoRole;
  const auto known =
      std::ranges::find(kRoles, label->second, [](const auto& r) { return r.first; });
  return known == kRoles.end() ? 0 : known->second;
}

int32_t EndpointPicker::take_id() {
  if (free_ids_.empty()) return next_id_++;
  const int32_t id = free_ids_.back();
  free_ids_.pop_back();
  return id;
}

void EndpointPicker::set_endpoints(std::vector<EndpointSpec> specs) {
  std::vector<int32_t> alive;
  std::vector<int32_t> gone;
  {
    const std::scoped_lock lock(mutex_);
    auto next = std::make_shared<Snapshot>();
    for (EndpointSpec& spec : specs) {
      const auto old = std::ranges::find_if(snapshot_->endpoints, [&](const Endpoint& e) {
        return e.name == spec.name && e.address == spec.address;
      });
      Endpoint endpoint;
      if (old != snapshot_->endpoints.end()) {
        endpoint = *old;
      } else {
        endpoint.id = take_id();
      }
      endpoint.host_port = spec.address.to_string();
      endpoint.name = std::move(spec.name);
      endpoint.address = std::move(spec.address);
      endpoint.roles = role_bits(spec.labels);
      endpoint.labels = std::make_shared<const Labels>(std::move(spec.labels));
      alive.push_back(endpoint.id);
      next->endpoints.push_back(std::move(endpoint));
    }
    for (const Endpoint& old : snapshot_->endpoints) {
      if (std::ranges::find(alive, old.id) == alive.end()) gone.push_back(old.id);
    }
    snapshot_ = std::move(next);
  }
  for (const auto& index : config_.prefix_indexes)
    index->keep_only(alive);
  // Nothing is remembered of them any more.
  const std::scoped_lock lock(mutex_);
  free_ids_.insert(free_ids_.end(), gone.begin(), gone.end());
}

void EndpointPicker::set_metrics(std::span<const std::pair<int32_t, EndpointMetrics>> updates) {
  if (updates.empty()) return;
  std::unordered_map<int32_t, const EndpointMetrics*> by_id;
  for (const auto& [id, metrics] : updates)
    by_id[id] = &metrics;
  const std::scoped_lock lock(mutex_);
  auto next = std::make_shared<Snapshot>(*snapshot_);
  for (Endpoint& endpoint : next->endpoints) {
    if (const auto update = by_id.find(endpoint.id); update != by_id.end()) {
      endpoint.metrics = *update->second;
    }
  }
  snapshot_ = std::move(next);
}

}  // namespace wideep::epp
