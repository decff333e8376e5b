// The list of plugin types: one line each. Adding a plugin is its class and a line here.
#pragma once

#include "epp/config.h"

#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace wideep::epp {

// An instance of a plugin, by what it can be used as.
struct Plugin {
  std::string type;
  std::shared_ptr<Filter> filter;
  std::shared_ptr<Scorer> scorer;
  std::shared_ptr<Picker> picker;
  std::shared_ptr<ProfileHandler> handler;
  std::shared_ptr<PrefillDecider> decider;
  std::shared_ptr<PrefixIndex> prefix_index;
  std::optional<FileDiscoveryOptions> discovery;
  std::optional<SaturationOptions> saturation;
};

using Plugins = std::map<std::string, Plugin, std::less<>>;  // by name

// Builds a plugin. `plugins` are those declared so far; a prefix-cache-scorer or
// prefix-based-pd-decider without a named producer takes the one there is, or adds a default one.
Result<Plugin> make_plugin(std::string_view type, Parameters& parameters, Plugins& plugins);

// Whether plugins of this type refer to others and are built after them.
bool refers_to_others(std::string_view type);

}  // namespace wideep::epp
