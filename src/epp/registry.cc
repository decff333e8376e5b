#include "epp/registry.h"

#include "epp/filters.h"
#include "epp/pickers.h"
#include "epp/scorers.h"

#include <algorithm>
#include <array>

namespace wideep::epp {
namespace {

constexpr std::string_view kDefaultProducer = "approx-prefix-cache-producer";

using Build = Result<Plugin> (*)(Parameters&, Plugins&);

template <typename T>
Plugin with_filter(std::shared_ptr<T> filter) {
  Plugin plugin;
  plugin.filter = std::move(filter);
  return plugin;
}

template <typename T>
Plugin with_scorer(std::shared_ptr<T> scorer) {
  Plugin plugin;
  plugin.scorer = std::move(scorer);
  return plugin;
}

// The producer named by `name`, or the only one, or a new default one.
Result<std::shared_ptr<PrefixIndex>> producer(const std::string& name,
                                              const std::string& user,
                                              Plugins& plugins) {
  if (!name.empty()) {
    const auto it = plugins.find(name);
    if (it == plugins.end() || it->second.prefix_index == nullptr) {
      return invalid_argument("{}: '{}' is no {}", user, name, kDefaultProducer);
    }
    return it->second.prefix_index;
  }
  for (const auto& [other, plugin] : plugins) {
    if (plugin.prefix_index != nullptr) return plugin.prefix_index;
  }
  Plugin& added = plugins[std::string(kDefaultProducer)];
  added.type = kDefaultProducer;
  added.prefix_index = std::make_shared<PrefixIndex>(PrefixIndexOptions{});
  return added.prefix_index;
}

template <PickBy by>
Result<Plugin> build_picker(Parameters& parameters, Plugins& /*plugins*/) {
  Plugin plugin;
  plugin.picker = std::make_shared<RankPicker>(
      by, static_cast<size_t>(parameters.integer("maxNumOfEndpoints", 1, 1)));
  return plugin;
}

Result<std::vector<std::string>> text_list(const Json& value, const std::string& where) {
  std::vector<std::string> texts;
  if (!value.is_array()) return invalid_argument("{}: a list of texts is expected", where);
  for (const Json& item : *value.as_array()) {
    if (!item.is_string()) return invalid_argument("{}: a list of texts is expected", where);
    texts.push_back(*item.as_string());
  }
  return texts;
}

Result<LabelExpression> label_expression(const Json& json, const std::string& owner) {
  static constexpr std::array<std::pair<std::string_view, LabelExpression::Operator>, 4>
      kOperators = {{
          {"In", LabelExpression::Operator::kIn},
          {"NotIn", LabelExpression::Operator::kNotIn},
          {"Exists", LabelExpression::Operator::kExists},
          {"DoesNotExist", LabelExpression::Operator::kDoesNotExist},
      }};
  Parameters members(owner + ".matchExpressions", &json);
  LabelExpression expression;
  expression.key = members.text("key", "");
  const std::string name = members.text("operator", "");
  if (const Json* values = members.any("values")) {
    WD_ASSIGN_OR_RETURN(expression.values, text_list(*values, members.owner() + ".values"));
  }
  WD_TRY(members.finish());
  const auto it =
      std::ranges::find(kOperators, name, [](const auto& entry) { return entry.first; });
  if (it == kOperators.end() || expression.key.empty()) {
    return invalid_argument("{}: key and operator (In, NotIn, Exists, DoesNotExist) are expected",
                            members.owner());
  }
  expression.op = it->second;
  return expression;
}

Result<Plugin> build_label_selector(Parameters& parameters, Plugins& /*plugins*/) {
  std::map<std::string, std::string> labels;
  if (const Json* match = parameters.any("matchLabels")) {
    if (!match->is_object())
      return invalid_argument("{}: matchLabels must be a map", parameters.owner());
    for (const auto& [key, value] : *match->as_object()) {
      if (!value.is_string())
        return invalid_argument("{}: matchLabels.{} must be text", parameters.owner(), key);
      labels[key] = *value.as_string();
    }
  }
  std::vector<LabelExpression> expressions;
  if (const Json* match = parameters.any("matchExpressions")) {
    if (!match->is_array())
      return invalid_argument("{}: matchExpressions must be a list", parameters.owner());
    for (const Json& item : *match->as_array()) {
      WD_ASSIGN_OR_RETURN(LabelExpression expression, label_expression(item, parameters.owner()));
      expressions.push_back(std::move(expression));
    }
  }
  return with_filter(
      std::make_shared<LabelSelectorFilter>(std::move(labels), std::move(expressions)));
}

Result<Plugin> build_prefix_producer(Parameters& parameters, Plugins& /*plugins*/) {
  PrefixIndexOptions options;
  options.auto_tune = parameters.boolean("autoTune", options.auto_tune);
  options.block_size_tokens = parameters.integer("blockSizeTokens", options.block_size_tokens, 1);
  options.tokens_to_match_max =
      parameters.integer("maxPrefixTokensToMatch", options.tokens_to_match_max, 1);
  options.blocks_to_match_max =
      parameters.integer("maxPrefixBlocksToMatch", options.blocks_to_match_max, 1);
  options.lru_capacity_per_server =
      parameters.integer("lruCapacityPerServer", options.lru_capacity_per_server, 1);
  Plugin plugin;
  plugin.prefix_index = std::make_shared<PrefixIndex>(options);
  return plugin;
}

Result<Plugin> build_prefix_scorer(Parameters& parameters, Plugins& plugins) {
  const double weight = parameters.number("matchLengthWeight", 0);
  const double scale = parameters.number("matchLengthScaleTokens", 8192, 1);
  const std::string name = parameters.text("prefixMatchInfoProducerName", "");
  WD_ASSIGN_OR_RETURN(auto index, producer(name, parameters.owner(), plugins));
  return with_scorer(std::make_shared<PrefixCacheScorer>(std::move(index), weight, scale));
}

Result<Plugin> build_prefix_decider(Parameters& parameters, Plugins& plugins) {
  const int64_t non_cached = parameters.integer("nonCachedTokens", 0);
  const int64_t prompt = parameters.integer("promptTokens", 0);
  const std::string name = parameters.text("prefixMatchInfoProducerName", "");
  WD_ASSIGN_OR_RETURN(auto index, producer(name, parameters.owner(), plugins));
  Plugin plugin;
  plugin.decider = std::make_shared<PrefixBasedDecider>(std::move(index), non_cached, prompt);
  return plugin;
}

Result<Plugin> build_disagg_handler(Parameters& parameters, Plugins& plugins) {
  DisaggProfileHandler::Options options;
  if (const Json* profiles = parameters.any("profiles")) {
    Parameters names(parameters.owner() + ".profiles", profiles);
    options.decode_profile = names.text("decode", options.decode_profile);
    options.prefill_profile = names.text("prefill", options.prefill_profile);
    WD_TRY(names.finish());
  }
  const std::string order = parameters.text("stageOrder", "decode-first");
  if (order != "decode-first")
    return invalid_argument("{}: stageOrder '{}' is not implemented", parameters.owner(), order);
  const std::string policy = parameters.text("noPrefillerPolicy", "decode-only");
  if (policy != "decode-only" && policy != "fail") {
    return invalid_argument("{}: noPrefillerPolicy is decode-only or fail, not '{}'",
                            parameters.owner(), policy);
  }
  options.no_prefiller =
      policy == "fail" ? NoPrefillerPolicy::kFail : NoPrefillerPolicy::kDecodeOnly;
  std::shared_ptr<PrefillDecider> decider;
  if (const Json* deciders = parameters.any("deciders")) {
    Parameters names(parameters.owner() + ".deciders", deciders);
    const std::string name = names.text("prefill", "");
    WD_TRY(names.finish());
    const auto it = plugins.find(name);
    if (it == plugins.end() || it->second.decider == nullptr) {
      return invalid_argument("{}: deciders.prefill: '{}' is no decider", parameters.owner(), name);
    }
    decider = it->second.decider;
  }
  Plugin plugin;
  plugin.handler = std::make_shared<DisaggProfileHandler>(std::move(options), std::move(decider));
  return plugin;
}

struct Entry {
  std::string_view type;
  Build build;
  bool refers_to_others = false;
};

constexpr std::array<Entry, 22> kEntries = {{
    {"prefill-filter",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       return with_filter(std::make_shared<RoleFilter>(kPrefillRole));
     }},
    {"decode-filter",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       return with_filter(std::make_shared<RoleFilter>(kDecodeRole | kNoRole));
     }},
    {"label-selector-filter", build_label_selector},
    {"data-parallel-rank-filter",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       return with_filter(std::make_shared<DataParallelRankFilter>());
     }},
    {"queue-scorer",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       return with_scorer(std::make_shared<SpreadScorer>(&EndpointMetrics::waiting));
     }},
    {"running-requests-size-scorer",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       return with_scorer(std::make_shared<SpreadScorer>(&EndpointMetrics::running));
     }},
    {"kv-cache-utilization-scorer",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       return with_scorer(std::make_shared<KvCacheScorer>());
     }},
    {"load-aware-scorer",
     [](Parameters& p, Plugins&) -> Result<Plugin> {
       return with_scorer(std::make_shared<LoadAwareScorer>(p.number("threshold", 128, 1)));
     }},
    {"active-request-scorer",
     [](Parameters& p, Plugins&) -> Result<Plugin> {
       const int64_t idle = p.integer("idleThreshold", 0);
       return with_scorer(std::make_shared<ActiveRequestScorer>(idle, p.number("maxBusyScore", 1)));
     }},
    {"data-parallel-scorer",
     [](Parameters& p, Plugins&) -> Result<Plugin> {
       return with_scorer(std::make_shared<DataParallelScorer>(p.integer("maxNumSeqs", 64, 1)));
     }},
    {"prefix-cache-scorer", build_prefix_scorer, true},
    {"session-affinity-scorer",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       return with_scorer(std::make_shared<SessionAffinityScorer>());
     }},
    {"max-score-picker", build_picker<PickBy::kScore>},
    {"weighted-random-picker", build_picker<PickBy::kWeightedChance>},
    {"random-picker", build_picker<PickBy::kChance>},
    {"single-profile-handler",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       Plugin plugin;
       plugin.handler = std::make_shared<SingleProfileHandler>();
       return plugin;
     }},
    {"disagg-profile-handler", build_disagg_handler, true},
    {"always-disagg-pd-decider",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       Plugin plugin;
       plugin.decider = std::make_shared<AlwaysDisaggDecider>();
       return plugin;
     }},
    {"prefix-based-pd-decider", build_prefix_decider, true},
    {kDefaultProducer, build_prefix_producer},
    {"file-discovery",
     [](Parameters& p, Plugins&) -> Result<Plugin> {
       Plugin plugin;
       plugin.discovery = FileDiscoveryOptions{p.text("path", ""), p.boolean("watchFile", false)};
       if (plugin.discovery->path.empty())
         return invalid_argument("{}: path is missing", p.owner());
       return plugin;
     }},
    {"utilization-detector",
     [](Parameters& p, Plugins&) -> Result<Plugin> {
       Plugin plugin;
       plugin.saturation = SaturationOptions{};
       plugin.saturation->queue_depth_threshold = p.number("queueDepthThreshold", 5, 1e-9);
       plugin.saturation->kv_cache_util_threshold = p.number("kvCacheUtilThreshold", 0.8, 1e-9);
       return plugin;
     }},
}};

const Entry* find_entry(std::string_view type) {
  const auto it = std::ranges::find(kEntries, type, &Entry::type);
  return it == kEntries.end() ? nullptr : &*it;
}

}  // namespace

bool refers_to_others(std::string_view type) {
  const Entry* entry = find_entry(type);
  // The handler refers to deciders, which refer to producers: it comes last of all.
  return entry != nullptr && entry->refers_to_others;
}

Result<Plugin> make_plugin(std::string_view type, Parameters& parameters, Plugins& plugins) {
  const Entry* entry = find_entry(type);
  if (entry == nullptr)
    return invalid_argument("{}: plugin type '{}' is not implemented", parameters.owner(), type);
  WD_ASSIGN_OR_RETURN(Plugin plugin, entry->build(parameters, plugins));
  WD_TRY(parameters.finish());
  plugin.type = type;
  return plugin;
}

}  // namespace wideep::epp
