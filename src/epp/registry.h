// The list of plugin types: one line each. Adding a plugin is its class and a line here.
#pragma once

#include "epp/config.h"

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::epp {

// An instance of a plugin, by what it can be used as.
struct Plugin {
  std::string type;
  std::shared_ptr<Filter> filter;
  std::shared_ptr<Scorer> scorer;
  std::shared_ptr<Picker> picker;
  std::shared_ptr<ProfileHandler> handler;
  std::shared_ptr<PrefillDecider> decider;
  std::shared_ptr<PrefixIndex> prefix_index;  // that it is, or that a scorer has for itself
  std::optional<FileDiscoveryOptions> discovery;
  std::optional<SaturationOptions> saturation;
  std::string decode_profile;         // of a handler that disaggregates
  std::string prefill_profile;        // likewise; also of an older plugin that sends its choice
  std::vector<std::string> warnings;  // PickerConfig::warnings
};

using Plugins = std::map<std::string, Plugin, std::less<>>;  // by name

// Builds a plugin. `plugins` are those declared so far; a prefix-cache-scorer or
// prefix-based-pd-decider without a named producer takes the one there is, or adds a default one.
Result<Plugin> make_plugin(std::string_view type, Parameters& parameters, Plugins& plugins);

// Plugins of this type refer to those of lower stages, and are built after them.
int build_stage(std::string_view type);

}  // namespace wideep::epp
