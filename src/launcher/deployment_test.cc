#include "launcher/deployment.h"

#include "base/yaml.h"
#include "http/server.h"
#include "net/event_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace wideep::launcher {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

struct Planned {
  explicit Planned(std::string_view yaml) {
    config = *parse_cluster_config(yaml);
    plan = *plan_deployment(config,
                            {.program = "/bin/wideep",
                             .folder = "/run/x",
                             .num_cores = 8,
                             .kv_key_file = "/run/x/kv.key",
                             .group_key_file = "/run/x/group.key"},
                            ports);
  }

  const ProcessSpec& process(std::string_view name) const {
    for (const GroupSpec& group : plan.groups) {
      for (const ProcessSpec& member : group.members) {
        if (member.name == name) return member;
      }
    }
    ADD_FAILURE() << "no process " << name;
    return plan.groups.front().members.front();
  }

  // The value behind a flag of a process; "" if it has none.
  std::string flag(std::string_view name, std::string_view flag) const {
    const auto& command = process(name).command;
    const auto it = std::ranges::find(command, flag);
    return it == command.end() || it + 1 == command.end() ? "" : *(it + 1);
  }

  net::HeldPorts ports;
  ClusterConfig config;
  Deployment plan;
};

constexpr const char* kBoth =
    "model: m\ngroups:\n- {name: p, role: prefill, ranks: 2}\n- {name: d, ranks: 2}\n";

TEST(Deployment, GivesRanksTheContractOfLeaderWorkerSet) {
  const Planned planned(kBoth);
  const ProcessSpec& second = planned.process("d-1");
  EXPECT_EQ(second.environment.at("LWS_WORKER_INDEX"), "1");
  EXPECT_EQ(second.environment.at("LWS_GROUP_SIZE"), "2");
  EXPECT_EQ(second.environment.at("LWS_LEADER_ADDRESS"), "127.0.0.1");
  EXPECT_EQ(second.dropped_prefix, "WIDEEP_");  // WIDEEP_READY_FILE is not its ready file
  EXPECT_EQ(planned.flag("d-0", "--data-parallel-rpc-port"),
            planned.flag("d-1", "--data-parallel-rpc-port"));
  EXPECT_NE(planned.flag("d-0", "--data-parallel-rpc-port"),
            planned.flag("p-0", "--data-parallel-rpc-port"));
  EXPECT_EQ(planned.flag("d-0", "--threads"), "2");  // 8 cores, 4 ranks
}

TEST(Deployment, MakesPrefillRanksProduceKvAndDecodeRanksConsumeIt) {
  const Planned planned(kBoth);
  EXPECT_THAT(planned.flag("p-1", "--kv-transfer-config"), HasSubstr("kv_producer"));
  EXPECT_THAT(planned.flag("d-0", "--kv-transfer-config"), HasSubstr("kv_consumer"));
  EXPECT_EQ(planned.flag("p-1", "--kv-key-file"), "/run/x/kv.key");
  EXPECT_EQ(planned.flag("d-0", "--data-parallel-key-file"), "/run/x/group.key");
}

TEST(Deployment, PutsASidecarBeforeEachDecodeRankWhichMayCallThePrefillRanksOnly) {
  const Planned planned(kBoth);
  const RankPlan& rank = planned.plan.ranks[3];
  EXPECT_EQ(rank.name, "d-1");
  EXPECT_EQ(planned.plan.endpoint_of(rank).name, "sidecar-d-1");
  EXPECT_EQ(planned.flag("sidecar-d-1", "--engine"),
            planned.plan.members[rank.member].address.to_string());
  std::set<std::string> allowed;
  const auto& command = planned.process("sidecar-d-1").command;
  for (size_t i = 0; i + 1 < command.size(); ++i) {
    if (command[i] == "--allow-prefill") allowed.insert(command[i + 1]);
  }
  EXPECT_EQ(allowed, (std::set<std::string>{planned.plan.members[0].address.to_string(),
                                            planned.plan.members[1].address.to_string()}));
}

TEST(Deployment, HasNoSidecarsWithoutPrefillAndNoGroupFlagsForOneRank) {
  const Planned planned("model: m\ngroups:\n- {name: d}\n");
  EXPECT_EQ(planned.plan.groups.size(), 2U);
  EXPECT_EQ(planned.plan.endpoint_of(planned.plan.ranks[0]).name, "d-0");
  EXPECT_THAT(planned.process("d-0").command, Not(Contains("--data-parallel-size")));
  EXPECT_THAT(planned.process("d-0").command, Not(Contains("--kv-transfer-config")));
}

TEST(Deployment, EndsTheGatewayFirst) {
  // Groups end in reverse order: nobody new comes in while those behind the door finish.
  EXPECT_EQ(Planned(kBoth).plan.groups.back().name, "gateway");
}

TEST(Deployment, ListsTheEndpointsThatAreReady) {
  const Planned planned(kBoth);
  EXPECT_EQ(planned.plan.endpoints([](const RankPlan&) { return false; }), "endpoints: []\n");
  const auto text = planned.plan.endpoints([](const RankPlan& rank) { return rank.name == "d-1"; });
  const auto document = parse_yaml(text);
  ASSERT_TRUE(document) << text;
  const Json& only = document->find("endpoints")->as_array()->at(0);
  EXPECT_EQ(*only.find("name")->as_string(), "d-1");
  EXPECT_EQ(*only.find("labels")->find("llm-d.ai/role")->as_string(), "decode");
}

TEST(Deployment, IsCompleteWhenTheGatewayKnowsEveryEndpoint) {
  const Planned planned(kBoth);
  EXPECT_TRUE(planned.plan.is_complete(R"({"endpoints":4})"));
  for (const char* other : {R"({"endpoints":3})", "{}", "", "not JSON"})
    EXPECT_FALSE(planned.plan.is_complete(other)) << other;
}

}  // namespace
}  // namespace wideep::launcher
