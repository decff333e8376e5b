#include "epp/config.h"

#include "base/yaml.h"
#include "epp/registry.h"

#include <algorithm>
#include <array>

namespace wideep::epp {
namespace {

constexpr std::string_view kApiVersion = "llm-d.ai/v1alpha1";
constexpr std::string_view kOldApiVersion = "inference.networking.x-k8s.io/v1alpha1";

struct Declaration {
  std::string name;
  std::string type;
  const Json* parameters = nullptr;
};

// Reads the document in the order of its meaning: plugins, profiles, handler, the rest.
class Reader {
 public:
  explicit Reader(const Json& document) : document_(document) {}

  Result<PickerConfig> read() {
    WD_TRY(read_header());
    WD_TRY(read_plugins());
    WD_TRY(read_profiles());
    WD_TRY(choose_handler());
    WD_TRY(read_data_layer());
    WD_TRY(read_objectives());
    for (const auto& [name, plugin] : plugins_) {
      if (plugin.prefix_index != nullptr) config_.prefix_indexes.push_back(plugin.prefix_index);
      if (plugin.saturation) config_.saturation = *plugin.saturation;
      if (plugin.discovery && !config_.discovery) config_.discovery = plugin.discovery;
    }
    return std::move(config_);
  }

 private:
  Status read_header() {
    static constexpr std::array<std::string_view, 11> kKeys = {
        "apiVersion",         "kind",           "featureGates", "plugins",
        "schedulingProfiles", "dataLayer",      "objectives",   "saturationDetector",
        "flowControl",        "requestHandler", "parser"};
    if (!document_.is_object()) return invalid_argument("a map is expected");
    for (const auto& [key, value] : *document_.as_object()) {
      if (std::ranges::find(kKeys, key) == kKeys.end())
        return invalid_argument("unknown key '{}'", key);
      if (key == "flowControl" || key == "requestHandler" || key == "parser") {
        return invalid_argument("'{}' is not implemented", key);
      }
    }
    const std::string version = text_of(document_, "apiVersion");
    if (version == kOldApiVersion) {
      config_.warnings.push_back(
          fmt::format("apiVersion {} is deprecated: {}", version, kApiVersion));
    } else if (version != kApiVersion) {
      return invalid_argument("apiVersion '{}': {} is expected", version, kApiVersion);
    }
    if (text_of(document_, "kind") != "EndpointPickerConfig")
      return invalid_argument("kind must be EndpointPickerConfig");
    return read_feature_gates();
  }

  Status read_feature_gates() {
    const Json* gates = document_.find("featureGates");
    if (gates == nullptr || gates->is_null()) return {};
    if (!gates->is_array()) return invalid_argument("featureGates must be a list");
    for (const Json& gate : *gates->as_array()) {
      const std::string* text = gate.as_string();
      if (text == nullptr) return invalid_argument("featureGates: names are expected");
      if (!text->ends_with("=false"))
        return invalid_argument("feature gate '{}' is not implemented", *text);
    }
    return {};
  }

  Status read_plugins() {
    std::vector<Declaration> declarations;
    const Json* list = document_.find("plugins");
    if (list != nullptr && !list->is_array()) return invalid_argument("plugins must be a list");
    static const Json::Array kNone;
    for (const Json& item : list != nullptr ? *list->as_array() : kNone) {
      WD_TRY(check_keys(item, "plugins", {"name", "type", "parameters"}));
      Declaration declaration{text_of(item, "name"), text_of(item, "type"),
                              item.find("parameters")};
      if (declaration.type.empty()) return invalid_argument("plugins: a plugin without type");
      if (declaration.name.empty()) declaration.name = declaration.type;
      declarations.push_back(std::move(declaration));
    }
    std::ranges::stable_sort(declarations, {},
                             [](const Declaration& d) { return build_stage(d.type); });
    for (const Declaration& declaration : declarations) {
      if (plugins_.contains(declaration.name))
        return invalid_argument("plugins: '{}' appears twice", declaration.name);
      WD_TRY(add_plugin(declaration));
    }
    return {};
  }

  Status add_plugin(const Declaration& declaration) {
    Parameters parameters("plugin '" + declaration.name + "'", declaration.parameters);
    WD_ASSIGN_OR_RETURN(Plugin plugin, make_plugin(declaration.type, parameters, plugins_));
    for (std::string& warning : plugin.warnings)
      config_.warnings.push_back(std::move(warning));
    plugins_[declaration.name] = std::move(plugin);
    return {};
  }

  // The plugin of that name; a type's name alone stands for its default instance.
  Result<Plugin*> refer(const std::string& name, std::string_view user) {
    if (!plugins_.contains(name)) {
      if (const Status added = add_plugin({name, name, nullptr}); !added) {
        return invalid_argument("{}: no plugin '{}'", user, name);
      }
    }
    return &plugins_.find(name)->second;
  }

  Status read_profiles() {
    const Json* list = document_.find("schedulingProfiles");
    if (list == nullptr || list->is_null()) return default_profile();
    if (!list->is_array() || list->as_array()->empty())
      return invalid_argument("schedulingProfiles must be a list");
    for (const Json& item : *list->as_array()) {
      WD_TRY(check_keys(item, "schedulingProfiles", {"name", "plugins"}));
      Profile profile{.name = text_of(item, "name")};
      if (profile.name.empty())
        return invalid_argument("schedulingProfiles: a profile without name");
      if (std::ranges::find(config_.profiles, profile.name, &Profile::name) !=
          config_.profiles.end()) {
        return invalid_argument("schedulingProfiles: '{}' appears twice", profile.name);
      }
      const Json* references = item.find("plugins");
      if (references == nullptr || !references->is_array()) {
        return invalid_argument("profile '{}': plugins must be a list", profile.name);
      }
      for (const Json& reference : *references->as_array())
        WD_TRY(add_to_profile(profile, reference));
      if (profile.picker == nullptr) {
        WD_ASSIGN_OR_RETURN(const Plugin* picker, refer("max-score-picker", profile.name));
        profile.picker = picker->picker;
        config_.notes.push_back(fmt::format("profile '{}': max-score-picker added", profile.name));
      }
      config_.profiles.push_back(std::move(profile));
    }
    return {};
  }

  Status add_to_profile(Profile& profile, const Json& reference) {
    const std::string where = "profile '" + profile.name + "'";
    WD_TRY(check_keys(reference, where, {"pluginRef", "weight"}));
    const std::string name = text_of(reference, "pluginRef");
    WD_ASSIGN_OR_RETURN(const Plugin* plugin, refer(name, where));
    const Json* weight = reference.find("weight");
    if (weight != nullptr && !weight->is_null() && plugin->scorer == nullptr) {
      return invalid_argument("{}: '{}' is no scorer and takes no weight", where, name);
    }
    if (plugin->filter != nullptr) {
      profile.filters.push_back(plugin->filter);
    } else if (plugin->scorer != nullptr) {
      const auto value =
          weight == nullptr || weight->is_null() ? std::optional(1.0) : weight->as_double();
      if (!value) return invalid_argument("{}: weight of '{}' must be a number", where, name);
      profile.scorers.emplace_back(plugin->scorer, *value);
    } else if (plugin->picker != nullptr) {
      if (profile.picker != nullptr) return invalid_argument("{}: two pickers", where);
      profile.picker = plugin->picker;
    } else {
      return invalid_argument("{}: '{}' ({}) is no filter, scorer or picker", where, name,
                              plugin->type);
    }
    return {};
  }

  Status default_profile() {
    Profile profile{.name = "default"};
    for (const auto& [type, weight] :
         {std::pair{"queue-scorer", 2.0}, std::pair{"kv-cache-utilization-scorer", 2.0},
          std::pair{"prefix-cache-scorer", 3.0}}) {
      WD_ASSIGN_OR_RETURN(const Plugin* scorer, refer(type, "default profile"));
      profile.scorers.emplace_back(scorer->scorer, weight);
    }
    WD_ASSIGN_OR_RETURN(const Plugin* picker, refer("max-score-picker", "default profile"));
    profile.picker = picker->picker;
    config_.profiles.push_back(std::move(profile));
    config_.notes.emplace_back("no schedulingProfiles: the default profile is used");
    return {};
  }

  Status choose_handler() {
    for (const auto& [name, plugin] : plugins_) {
      if (plugin.handler == nullptr) continue;
      if (config_.handler != nullptr) return invalid_argument("two profile handlers");
      config_.handler = plugin.handler;
      for (const std::string& profile : {plugin.decode_profile, plugin.prefill_profile})
        if (!profile.empty() && !has_profile(profile))
          return invalid_argument("plugin '{}': no profile '{}'", name, profile);
      WD_TRY(check_senders(plugin));
    }
    if (config_.handler != nullptr) return {};
    if (config_.profiles.size() > 1)
      return invalid_argument("several profiles need a profile handler");
    config_.handler = std::make_shared<SingleProfileHandler>();
    return {};
  }

  // Older plugins that send the choice of a profile: it must be the one that the handler sends.
  Status check_senders(const Plugin& handler) const {
    for (const auto& [name, plugin] : plugins_) {
      const std::string& sent = plugin.prefill_profile;
      if (!handler.prefill_profile.empty() && !sent.empty() && sent != handler.prefill_profile)
        return invalid_argument("plugin '{}': prefillProfile '{}': the handler's is '{}'", name,
                                sent, handler.prefill_profile);
    }
    return {};
  }

  bool has_profile(std::string_view name) const {
    return std::ranges::find(config_.profiles, name, &Profile::name) != config_.profiles.end();
  }

  Status read_data_layer() {
    if (const Json* detector = document_.find("saturationDetector");
        detector != nullptr && !detector->is_null()) {
      WD_TRY(check_keys(*detector, "saturationDetector", {"pluginRef"}));
      WD_ASSIGN_OR_RETURN(const Plugin* plugin,
                          refer(text_of(*detector, "pluginRef"), "saturationDetector"));
      if (!plugin->saturation)
        return invalid_argument("saturationDetector: '{}' is no detector", plugin->type);
    }
    const Json* layer = document_.find("dataLayer");
    if (layer == nullptr || layer->is_null()) return {};
    WD_TRY(check_keys(*layer, "dataLayer", {"discovery", "injectDefaults"}));
    const Json* discovery = layer->find("discovery");
    if (discovery == nullptr) return {};
    WD_TRY(check_keys(*discovery, "dataLayer.discovery", {"pluginRef"}));
    WD_ASSIGN_OR_RETURN(const Plugin* plugin,
                        refer(text_of(*discovery, "pluginRef"), "dataLayer.discovery"));
    if (!plugin->discovery)
      return invalid_argument("dataLayer.discovery: '{}' discovers nothing", plugin->type);
    config_.discovery = plugin->discovery;
    return {};
  }

  Status read_objectives() {
    const Json* list = document_.find("objectives");
    if (list == nullptr) return {};
    if (!list->is_array()) return invalid_argument("objectives must be a list");
    for (const Json& item : *list->as_array()) {
      Parameters members("objectives", &item);
      Objective objective{members.text("name", ""),
                          static_cast<int32_t>(members.integer("priority", 0, INT32_MIN))};
      WD_TRY(members.finish());
      if (objective.name.empty()) return invalid_argument("objectives: an objective without name");
      config_.objectives.push_back(std::move(objective));
    }
    return {};
  }

  static std::string text_of(const Json& object, std::string_view key) {
    const Json* value = object.find(key);
    const std::string* text = value != nullptr ? value->as_string() : nullptr;
    return text != nullptr ? *text : "";
  }

  static Status check_keys(const Json& object,
                           std::string_view where,
                           std::initializer_list<std::string_view> keys) {
    if (!object.is_object()) return invalid_argument("{}: a map is expected", where);
    for (const auto& [key, value] : *object.as_object()) {
      if (std::ranges::find(keys, key) == keys.end())
        return invalid_argument("{}: unknown key '{}'", where, key);
    }
    return {};
  }

  const Json& document_;
  Plugins plugins_;
  PickerConfig config_;
};

}  // namespace

Result<PickerConfig> parse_picker_config(std::string_view yaml) {
  WD_ASSIGN_OR_RETURN(const Json document, parse_yaml(yaml));
  return Reader(document).read();
}

}  // namespace wideep::epp
