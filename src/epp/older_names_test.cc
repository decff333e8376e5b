// Configurations written for older llm-d: accepted where they mean what we have, with a warning
// that names today's words; refused by name where they do not.
#include "epp/config.h"
#include "epp/endpoint_picker.h"
#include "epp/filters.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::epp {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

constexpr std::string_view kProfiles = R"(
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: prefix-cache-scorer, weight: 2.0}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: prefix-cache-scorer, weight: 2.0}]
)";

// With the plugins that each of these configurations has.
std::string yaml(std::string_view plugins, std::string_view profiles = kProfiles) {
  return fmt::format(R"(apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefill-header-handler
- type: prefill-filter
- type: decode-filter
- type: max-score-picker
{}
{})",
                     plugins, profiles);
}

PickerConfig accepted(const std::string& text) {
  auto parsed = parse_picker_config(text);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? std::move(*parsed) : PickerConfig{};
}

std::string refusal(const std::string& text) {
  const auto parsed = parse_picker_config(text);
  return parsed ? "accepted" : parsed.error().message;
}

EndpointSpec spec(const std::string& name, const std::string& role) {
  return {.name = "default/" + name,
          .address = {.host = name, .port = 80},
          .labels = {{std::string(kRoleLabel), role}}};
}

// Whether a prompt of so many bytes is computed by a prefiller; it is `letter` throughout.
bool goes_to_prefill(EndpointPicker& picker, size_t bytes, char letter = 'x') {
  PickRequest request;
  request.model = "m";
  request.prompt = std::string(bytes, letter);
  const auto decision = picker.pick(request);
  EXPECT_TRUE(decision) << decision.error().message;
  if (!decision || decision->prefill == nullptr) return false;
  EXPECT_EQ(decision->headers.at("x-prefiller-host-port"), "p0:80");
  return true;
}

struct Pool {
  EndpointPicker picker;

  explicit Pool(const std::string& text) : picker(accepted(text), real_clock()) {
    picker.set_endpoints({spec("p0", "prefill"), spec("d0", "decode")});
  }
};

TEST(OlderNames, AThresholdOfZeroAlwaysDisaggregates) {
  // As in llm-d's guides of 2025.
  const std::string guide = yaml(R"(
- type: prefix-cache-scorer
  parameters: {hashBlockSize: 5, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}
- type: pd-profile-handler
  parameters: {threshold: 0, hashBlockSize: 5})");
  EXPECT_THAT(accepted(guide).warnings,
              AllOf(Contains(HasSubstr("llm-d.ai/v1alpha1")),
                    Contains(AllOf(HasSubstr("'prefill-header-handler' is deprecated"),
                                   HasSubstr("disagg-profile-handler"))),
                    Contains(AllOf(HasSubstr("pd-profile-handler is deprecated"),
                                   HasSubstr("deciders.prefill: always-disagg-pd-decider"))),
                    Contains(AllOf(HasSubstr("approx-prefix-cache-producer"),
                                   HasSubstr("blockSizeTokens 2 ")))));
  Pool pool(guide);
  EXPECT_TRUE(goes_to_prefill(pool.picker, 8));
  EXPECT_TRUE(goes_to_prefill(pool.picker, 8)) << "though it is known by now";
  // Zero is the default.
  Pool bare(yaml("- type: pd-profile-handler"));
  EXPECT_TRUE(goes_to_prefill(bare.picker, 8));
}

TEST(OlderNames, AThresholdIsBytesOfThePromptThatTheDecodeEndpointLacks) {
  const std::string text = yaml(R"(
- type: prefix-cache-scorer
  parameters: {hashBlockSize: 64}
- type: pd-profile-handler
  parameters: {threshold: 500, hashBlockSize: 64})");
  EXPECT_THAT(accepted(text).warnings,
              Contains(AllOf(HasSubstr("prefix-based-pd-decider with nonCachedTokens 125"))));
  Pool pool(text);
  EXPECT_FALSE(goes_to_prefill(pool.picker, 496));
  EXPECT_TRUE(goes_to_prefill(pool.picker, 500, 'y'));
  EXPECT_FALSE(goes_to_prefill(pool.picker, 500, 'y')) << "the decode endpoint has it";
}

TEST(OlderNames, TheHandlerCouldNameADeciderOrTakeTheDeclaredOne) {
  for (const char* parameters :
       {"", "\n  parameters: {deciderPluginName: prefix-based-pd-decider}"}) {
    Pool pool(yaml(fmt::format(R"(
- type: prefix-cache-scorer
- type: pd-profile-handler{}
- type: prefix-based-pd-decider
  parameters: {{nonCachedTokens: 100}})",
                               parameters)));
    EXPECT_FALSE(goes_to_prefill(pool.picker, 396));
    EXPECT_TRUE(goes_to_prefill(pool.picker, 400, 'y'));
  }
}

TEST(OlderNames, ProfilesMayHaveOtherNames) {
  constexpr std::string_view kOthers = R"(
schedulingProfiles:
- {name: first, plugins: [{pluginRef: prefill-filter}]}
- {name: second, plugins: [{pluginRef: decode-filter}]}
)";
  const std::string handler = R"(
- type: pd-profile-handler
  parameters: {decodeProfile: second, prefillProfile: first})";
  EXPECT_THAT(refusal(yaml(handler, kOthers)),
              AllOf(HasSubstr("'prefill-header-handler'"), HasSubstr("'first'")));
  std::string text = yaml(handler, kOthers);
  constexpr std::string_view kSender = "- type: prefill-header-handler";
  text.replace(text.find(kSender), kSender.size(),
               std::string(kSender) + "\n  parameters: {prefillProfile: first}");
  Pool pool(text);
  EXPECT_TRUE(goes_to_prefill(pool.picker, 8));
}

TEST(OlderNames, TheScorersIndexIsSharedWithWhoReadsIt) {
  const PickerConfig config = accepted(yaml(R"(
- type: disagg-profile-handler
  parameters: {deciders: {prefill: prefix-based-pd-decider}}
- type: prefix-based-pd-decider
  parameters: {nonCachedTokens: 16}
- type: prefix-cache-scorer
  parameters: {maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250})"));
  EXPECT_EQ(config.prefix_indexes.size(), 1U);
  // In tokens where there are token ids: 64 bytes are 16 of them.
  const PickerConfig sized = accepted(yaml(R"(
- type: disagg-profile-handler
- type: prefix-cache-scorer
  parameters: {hashBlockSize: 64, maxPrefixBlocksToMatch: 3})"));
  ASSERT_EQ(sized.prefix_indexes.size(), 1U);
  PickRequest request;
  request.tokens.assign(40, 7);
  int64_t block_tokens = 0;
  EXPECT_EQ(sized.prefix_indexes[0]->hashes(request, &block_tokens).size(), 3U);
  EXPECT_EQ(block_tokens, 16);
  request.tokens.assign(400, 7);
  EXPECT_EQ(sized.prefix_indexes[0]->hashes(request, &block_tokens).size(), 3U);
}

TEST(OlderNames, RefuseWhatMeansSomethingElse) {
  const auto handler = [](std::string_view parameters) {
    return refusal(
        yaml(fmt::format("- type: prefix-cache-scorer\n- type: pd-profile-handler\n"
                         "  parameters: {{{}}}",
                         parameters)));
  };
  EXPECT_THAT(handler("primaryPort: 8000"), HasSubstr("primaryPort is not implemented"));
  EXPECT_THAT(handler("threshold: 5, deciderPluginName: a"), HasSubstr("exclude each other"));
  EXPECT_THAT(handler("deciderPluginName: a"), HasSubstr("'a' is no decider"));
  EXPECT_THAT(handler("threshold: 5, prefixPluginName: a"), HasSubstr("'a' is no prefix-cache"));
  EXPECT_THAT(handler("prefixPluginType: precise-prefix-cache-scorer"),
              HasSubstr("'precise-prefix-cache-scorer' is not implemented"));
  EXPECT_THAT(handler("hashBlockSize: 0"), HasSubstr("hashBlockSize"));
  EXPECT_THAT(handler("treshold: 5"), HasSubstr("unknown parameter 'treshold'"));
  EXPECT_THAT(handler("decodeProfile: none"), HasSubstr("no profile 'none'"));
  EXPECT_THAT(refusal(yaml("- type: disagg-headers-handler\n  parameters: {encodeProfile: e}")),
              HasSubstr("unknown parameter 'encodeProfile'"));
  EXPECT_THAT(refusal(yaml(R"(
- type: approx-prefix-cache-producer
- type: prefix-cache-scorer
  parameters: {hashBlockSize: 64})")),
              HasSubstr("sizes of the index belong to its approx-prefix-cache-producer"));
  // A profile that the handler names must be there, also if there is one of the usual name.
  EXPECT_THAT(refusal(yaml(R"(
- type: disagg-profile-handler
  parameters: {profiles: {decode: missing}})")),
              HasSubstr("no profile 'missing'"));
}

}  // namespace
}  // namespace wideep::epp
