#include "launcher/cluster_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

std::string mistake(std::string_view yaml) {
  const auto config = parse_cluster_config(yaml);
  return config ? "" : config.error().message;
}

TEST(ClusterConfig, ReadsGroupsAndTheirFlags) {
  const auto config = parse_cluster_config(
      "model: m\n"
      "gateway: {port: 0, flags: {access-log: false}}\n"
      "groups:\n"
      "- {name: p, role: prefill, ranks: 2}\n"
      "- {name: d, role: decode, ranks: 3, threads: 4, flags: {max-num-seqs: 8}}\n"
      "restart: {max_in_a_row: 9, backoff_first_ms: 10}\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->groups.size(), 2U);
  EXPECT_EQ(config->groups[0].role, Role::kPrefill);
  EXPECT_EQ(config->groups[1].ranks, 3);
  EXPECT_EQ(config->groups[1].threads, 4);
  EXPECT_EQ(config->restart.restarts_max, 9);
  EXPECT_EQ(config->restart.backoff_first, std::chrono::milliseconds(10));
  EXPECT_EQ(config->num_ranks(), 5);
  EXPECT_TRUE(config->has_prefill());
  EXPECT_THAT(flag_arguments(config->groups[1].flags), ElementsAre("--max-num-seqs", "8"));
}

TEST(ClusterConfig, NamesTheLineOfWhatIsWrong) {
  EXPECT_EQ(mistake("model: m\ngroups:\n- name: d\n  rank: 2\n"),
            "line 4: groups[0]: unknown parameter 'rank'; did you mean 'ranks'?");
  EXPECT_EQ(mistake("model: m\ngroups:\n- {name: d, role: both}\n"),
            "line 3: groups[0]: role must be one of prefill, decode");
  EXPECT_EQ(mistake("model: m\ngrups: []\ngroups: [{name: d}]\n"),
            "line 2: unknown parameter 'grups'; did you mean 'groups'?");
  EXPECT_THAT(mistake("groups: [{name: d}]\n"), HasSubstr("model must be the folder"));
  EXPECT_THAT(mistake("model: m\n"), HasSubstr("groups must be a list of 1 to 64"));
  EXPECT_THAT(mistake("model: m\ngroups: [{name: D}]\n"), HasSubstr("name must be a word"));
  EXPECT_THAT(mistake("model: m\ngroups: [{name: d}, {name: d}]\n"), HasSubstr("unique"));
  EXPECT_THAT(mistake("model: m\ngroups: [{name: d, ranks: 1000}]\n"), HasSubstr("at most 256"));
  EXPECT_THAT(mistake("model: m\ngroups: [{name: p, role: prefill}]\n"),
              HasSubstr("a group of role decode"));
  EXPECT_THAT(mistake("- m\n"), HasSubstr("a map is expected"));
}

TEST(ClusterConfig, RefusesFlagsThatItSetsItself) {
  EXPECT_EQ(mistake("model: m\ngroups:\n- name: d\n  flags:\n    port: 1\n"),
            "line 5: groups[0].flags: port must be left out: wideep up sets it");
  EXPECT_THAT(mistake("model: m\ngroups: [{name: d, flags: {data-parallel-rank: 1}}]\n"),
              HasSubstr("data-parallel-rank must be left out"));
  EXPECT_THAT(mistake("model: m\ngroups: [{name: d, flags: 7}]\n"), HasSubstr("flags must be"));
}

TEST(ClusterConfig, WhatItPrintsItReads) {
  ClusterConfig config =
      default_cluster("models/a b", kGiB, {.num_cores = 4, .memory_bytes = 64 * kGiB});
  config.groups[0].flags.set("api-key", Json(Json::Array{Json("x"), Json("y: \"z\"")}));
  config.groups[0].threads = 3;
  config.restart.stable_after = std::chrono::milliseconds(1);
  const std::string text = to_yaml(config);
  const auto again = parse_cluster_config(text);
  ASSERT_TRUE(again) << again.error().message << "\n" << text;
  EXPECT_EQ(to_yaml(*again), text);
  EXPECT_EQ(again->picker_config, picker_config(config));
  EXPECT_EQ(again->model, "models/a b");
}

TEST(ClusterConfig, FlagsBecomeArguments) {
  Json flags{Json::Object{}};
  flags.set("max-num-seqs", 16);
  flags.set("enable-prefix-caching", false);
  flags.set("access-log", true);
  flags.set("api-key", Json(Json::Array{Json("a"), Json("b")}));
  flags.set("kv-transfer-config", Json(Json::Object{{"kv_role", Json("kv_both")}}));
  EXPECT_THAT(
      flag_arguments(flags),
      ElementsAre("--max-num-seqs", "16", "--no-enable-prefix-caching", "--access-log", "--api-key",
                  "a", "--api-key", "b", "--kv-transfer-config", R"({"kv_role":"kv_both"})"));
}

TEST(ClusterConfig, DefaultsAreWhatTheMachineAllows) {
  const auto shape = [](int64_t cores, int64_t gib) {
    std::string text;
    for (const auto& group : default_cluster("m", 10 * kGiB, {cores, gib * kGiB}).groups)
      text += fmt::format("{}{} ", name(group.role), group.ranks);
    return text;
  };
  EXPECT_EQ(shape(2, 64), "prefill2 decode2 ");
  EXPECT_EQ(shape(1, 64), "prefill1 decode1 ");
  EXPECT_EQ(shape(8, 25), "decode2 ");
}

}  // namespace
}  // namespace wideep::launcher
