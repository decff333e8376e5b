#include "epp/registry.h"

#include "epp/filters.h"
#include "epp/pickers.h"
#include "epp/scorers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace wideep::epp {
namespace {

constexpr std::string_view kDefaultProducer = "approx-prefix-cache-producer";
constexpr std::string_view kPrefixScorer = "prefix-cache-scorer";
constexpr std::string_view kPrefixDecider = "prefix-based-pd-decider";

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

constexpr std::array<std::string_view, 5> kIndexKeys = {
    "autoTune", "blockSizeTokens", "maxPrefixTokensToMatch", "maxPrefixBlocksToMatch",
    "lruCapacityPerServer"};

PrefixIndexOptions index_options(Parameters& parameters, PrefixIndexOptions options) {
  options.auto_tune = parameters.boolean("autoTune", options.auto_tune);
  options.block_size_tokens = parameters.integer("blockSizeTokens", options.block_size_tokens, 1);
  options.tokens_to_match_max =
      parameters.integer("maxPrefixTokensToMatch", options.tokens_to_match_max, 1);
  options.blocks_to_match_max =
      parameters.integer("maxPrefixBlocksToMatch", options.blocks_to_match_max, 1);
  options.lru_capacity_per_server =
      parameters.integer("lruCapacityPerServer", options.lru_capacity_per_server, 1);
  return options;
}

Result<Plugin> build_prefix_producer(Parameters& parameters, Plugins& /*plugins*/) {
  Plugin plugin;
  plugin.prefix_index = std::make_shared<PrefixIndex>(index_options(parameters, {}));
  return plugin;
}

// Older llm-d: the scorer had the index, and sizes were in bytes of the prompt. Nothing if none of
// its parameters is given.
std::optional<PrefixIndexOptions> scorers_own_index(Parameters& parameters) {
  PrefixIndexOptions options;
  bool is_given = false;
  if (parameters.any("hashBlockSize") != nullptr) {
    options.block_size_tokens = tokens_of_bytes(parameters.integer("hashBlockSize", 1, 1));
    options.auto_tune = false;  // there was no such thing then
    is_given = true;
  }
  for (const std::string_view key : kIndexKeys)
    is_given |= parameters.any(key) != nullptr;
  options = index_options(parameters, options);
  return is_given ? std::optional(options) : std::nullopt;
}

Result<Plugin> build_prefix_scorer(Parameters& parameters, Plugins& plugins) {
  const double weight = parameters.number("matchLengthWeight", 0);
  const double scale = parameters.number("matchLengthScaleTokens", 8192, 1);
  const std::string name = parameters.text("prefixMatchInfoProducerName", "");
  const std::optional<PrefixIndexOptions> own = scorers_own_index(parameters);
  if (!own) {
    WD_ASSIGN_OR_RETURN(auto index, producer(name, parameters.owner(), plugins));
    return with_scorer(std::make_shared<PrefixCacheScorer>(std::move(index), weight, scale));
  }
  const bool has_producer = std::ranges::any_of(
      plugins, [](const auto& entry) { return entry.second.type == kDefaultProducer; });
  if (has_producer || !name.empty())
    return invalid_argument("{}: sizes of the index belong to its {}", parameters.owner(),
                            kDefaultProducer);
  auto index = std::make_shared<PrefixIndex>(*own);
  Plugin plugin = with_scorer(std::make_shared<PrefixCacheScorer>(index, weight, scale));
  plugin.prefix_index = std::move(index);
  plugin.warnings.push_back(
      fmt::format("{}: sizes of the index are deprecated here: {} with blockSizeTokens {} and the "
                  "others (hashBlockSize is bytes, four to a token)",
                  parameters.owner(), kDefaultProducer, own->block_size_tokens));
  return plugin;
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

Result<std::shared_ptr<PrefillDecider>> decider_named(const std::string& name,
                                                      const std::string& user,
                                                      const Plugins& plugins) {
  const auto it = plugins.find(name);
  if (it == plugins.end() || it->second.decider == nullptr)
    return invalid_argument("{}: '{}' is no decider", user, name);
  return it->second.decider;
}

Plugin with_disagg_handler(DisaggProfileHandler::Options options,
                           std::shared_ptr<PrefillDecider> decider) {
  Plugin plugin;
  plugin.decode_profile = options.decode_profile;
  plugin.prefill_profile = options.prefill_profile;
  plugin.handler = std::make_shared<DisaggProfileHandler>(std::move(options), std::move(decider));
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
    WD_ASSIGN_OR_RETURN(decider,
                        decider_named(name, parameters.owner() + ": deciders.prefill", plugins));
  }
  return with_disagg_handler(std::move(options), std::move(decider));
}

// The decider of a pd-profile-handler, and how it is declared today. There were two kinds of it:
// with a threshold in bytes of the prompt (0, the default: always), and with a decider by name,
// whose default had to be declared.
struct OlderDecider {
  std::shared_ptr<PrefillDecider> decider;
  std::string today;
};

Result<OlderDecider> older_decider(Parameters& parameters, Plugins& plugins) {
  const bool has_threshold = parameters.any("threshold") != nullptr;
  const int64_t threshold = parameters.integer("threshold", 0);
  std::string name = parameters.text("deciderPluginName", "");
  const std::string type = parameters.text("prefixPluginType", std::string(kPrefixScorer));
  const std::string scorer = parameters.text("prefixPluginName", type);
  if (type != kPrefixScorer)
    return invalid_argument("{}: prefixPluginType '{}' is not implemented", parameters.owner(),
                            type);
  if (has_threshold && !name.empty())
    return invalid_argument("{}: threshold and deciderPluginName exclude each other",
                            parameters.owner());
  if (!has_threshold && name.empty() && plugins.contains(kPrefixDecider)) name = kPrefixDecider;
  if (!name.empty()) {
    WD_ASSIGN_OR_RETURN(auto decider,
                        decider_named(name, parameters.owner() + ": deciderPluginName", plugins));
    return OlderDecider{std::move(decider), name};
  }
  if (threshold == 0)
    return OlderDecider{std::make_shared<AlwaysDisaggDecider>(), "always-disagg-pd-decider"};
  const auto it = plugins.find(scorer);
  if (it == plugins.end() || it->second.type != kPrefixScorer)
    return invalid_argument("{}: '{}' is no {}: threshold needs one", parameters.owner(), scorer,
                            kPrefixScorer);
  std::shared_ptr<PrefixIndex> index = it->second.prefix_index;
  if (index == nullptr) {
    WD_ASSIGN_OR_RETURN(index, producer("", parameters.owner(), plugins));
  }
  const int64_t tokens = tokens_of_bytes(threshold);
  return OlderDecider{
      std::make_shared<PrefixBasedDecider>(std::move(index), tokens, 0),
      fmt::format("{} with nonCachedTokens {} (threshold is bytes, four to a token)",
                  kPrefixDecider, tokens)};
}

Result<Plugin> build_pd_handler(Parameters& parameters, Plugins& plugins) {
  DisaggProfileHandler::Options options;
  options.decode_profile = parameters.text("decodeProfile", options.decode_profile);
  options.prefill_profile = parameters.text("prefillProfile", options.prefill_profile);
  if (parameters.integer("primaryPort", 0) != 0)
    return invalid_argument("{}: primaryPort is not implemented: each rank is an endpoint",
                            parameters.owner());
  // It had to be that of the scorer; the index knows it here.
  parameters.integer("hashBlockSize", 1, 1);
  WD_ASSIGN_OR_RETURN(OlderDecider older, older_decider(parameters, plugins));
  Plugin plugin = with_disagg_handler(std::move(options), std::move(older.decider));
  plugin.warnings.push_back(
      fmt::format("{}: pd-profile-handler is deprecated: disagg-profile-handler, deciders.prefill: "
                  "{}; blocks are those of the prefix index",
                  parameters.owner(), older.today));
  return plugin;
}

// It sent the choice of a profile in x-prefiller-host-port; the handler does that itself.
Result<Plugin> build_header_handler(Parameters& parameters, Plugins& /*plugins*/) {
  Plugin plugin;
  plugin.prefill_profile = parameters.text("prefillProfile", "prefill");
  plugin.warnings.push_back(
      fmt::format("{} is deprecated and does nothing: disagg-profile-handler sends {}",
                  parameters.owner(), kPrefillHeader));
  return plugin;
}

struct Entry {
  std::string_view type;
  Build build;
  int stage = 0;  // see build_stage
};

constexpr std::array<Entry, 25> kEntries = {{
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
    {kPrefixScorer, build_prefix_scorer, 1},
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
    {"disagg-profile-handler", build_disagg_handler, 3},
    {"pd-profile-handler", build_pd_handler, 3},
    {"prefill-header-handler", build_header_handler},
    {"disagg-headers-handler", build_header_handler},
    {"always-disagg-pd-decider",
     [](Parameters&, Plugins&) -> Result<Plugin> {
       Plugin plugin;
       plugin.decider = std::make_shared<AlwaysDisaggDecider>();
       return plugin;
     }},
    {kPrefixDecider, build_prefix_decider, 2},
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

int build_stage(std::string_view type) {
  const Entry* entry = find_entry(type);
  return entry != nullptr ? entry->stage : 0;
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
