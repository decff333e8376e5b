// EndpointPickerConfig (apiVersion llm-d.ai/v1alpha1): YAML into plugins, strictly. A key, plugin
// type or parameter that is not known is an error that names it; one that upstream has and wideep
// has not is refused by name.
#pragma once

#include "base/json.h"
#include "base/parameters.h"
#include "base/result.h"
#include "epp/plugin.h"
#include "epp/prefix_index.h"
#include "epp/profiles.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::epp {

// file-discovery: endpoints from a YAML or JSON file.
struct FileDiscoveryOptions {
  std::string path;
  bool watch_file = false;
};

// utilization-detector: how full an endpoint is, max(queue / threshold, kv / threshold); stale
// metrics count as full.
struct SaturationOptions {
  double queue_depth_threshold = 5;
  double kv_cache_util_threshold = 0.8;
  std::chrono::milliseconds metrics_staleness{200};
};

// A priority by name (x-llm-d-inference-objective); negative ones are shed when the pool is
// saturated. Kubernetes has InferenceObjective for it; without Kubernetes the list is an extension
// of the configuration: `objectives`.
struct Objective {
  std::string name;
  int32_t priority = 0;
};

// The parsed configuration: plugins ready to run.
struct PickerConfig {
  std::vector<Profile> profiles;
  // Shared: a plugin may be used by several profiles, and is also told where requests went.
  std::shared_ptr<ProfileHandler> handler;
  std::vector<std::shared_ptr<PrefixIndex>> prefix_indexes;
  std::optional<FileDiscoveryOptions> discovery;
  SaturationOptions saturation;
  std::vector<Objective> objectives;
  // Worth a line in the log each: defaults that were filled in; deprecated spellings, with today's.
  std::vector<std::string> notes;
  std::vector<std::string> warnings;
};

Result<PickerConfig> parse_picker_config(std::string_view yaml);

}  // namespace wideep::epp
