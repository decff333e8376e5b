#include "cmd/expert_placement.h"

#include "base/file.h"
#include "cmd/expert_load.h"
#include "ep/expert_load.h"
#include "launcher/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::cmd {
namespace {

using testing::HasSubstr;

// Rows that a rank's experts have computed under a placement, as its document tells them.
std::string document_of(const ep::Placement& placement,
                        RankId rank,
                        const std::vector<std::vector<int64_t>>& rows_of_expert) {
  ep::ExpertLoad load(placement.num_layers(), placement.slots_per_rank_max(),
                      placement.num_ranks());
  for (int32_t l = 0; l < placement.num_layers(); ++l) {
    const auto experts = placement.layer(LayerId{l}).experts_of(rank);
    for (int32_t s = 0; s < std::ssize(experts); ++s) {
      const int64_t rows = rows_of_expert[static_cast<size_t>(l)][subscript(experts[s])];
      load.add_computed(LayerId{l}, SlotId{s}, rows);
      load.add_sent(LayerId{l}, rank, rows);
    }
  }
  return load.to_json(placement, rank, 100).dump();
}

// 4 experts, of which 0 and 1 do nearly all; layer 0 has none.
class ExpertPlacement : public testing::Test {
 protected:
  void SetUp() override {
    const auto linear = ep::Placement::linear(2, 4, 2);
    const std::vector<std::vector<int64_t>> rows{{0, 0, 0, 0}, {60, 60, 10, 10}};
    const std::string text = merge_expert_load({document_of(linear, RankId{0}, rows),
                                                document_of(linear, RankId{1}, rows)})
                                 .dump();
    ASSERT_TRUE(write_file(path_, text));
    merged_ = *parse_json(text);
  }

  const launcher::RunFolder folder_ = *launcher::RunFolder::create(testing::TempDir());
  const std::string path_ = folder_.path() + "/load.json";
  Json merged_;
};

TEST_F(ExpertPlacement, EvensOutWhatWasRecorded) {
  const auto placement = choose_placement({.load_file = path_}, 2, 4, 2);
  ASSERT_TRUE(placement) << placement.error().message;
  const ep::LayerPlacement& layer = placement->layer(LayerId{1});
  EXPECT_NE(layer.replicas(ExpertId{0})[0].rank, layer.replicas(ExpertId{1})[0].rank);
  EXPECT_NE(placement->hash(), ep::Placement::linear(2, 4, 2).hash());
}

TEST_F(ExpertPlacement, GivesRedundantSlotsToTheBusiest) {
  const auto placement =
      choose_placement({.load_file = path_, .num_redundant_experts = 2}, 2, 4, 2);
  ASSERT_TRUE(placement) << placement.error().message;
  const ep::LayerPlacement& layer = placement->layer(LayerId{1});
  EXPECT_EQ(layer.slots_per_rank(), 3);
  for (const ExpertId busy : {ExpertId{0}, ExpertId{1}})
    EXPECT_EQ(layer.replicas(busy).size(), 2);
}

TEST_F(ExpertPlacement, RoundsSlotsUpToWholeRanks) {
  const auto placement = choose_placement({.num_redundant_experts = 1}, 1, 4, 3);
  ASSERT_TRUE(placement) << placement.error().message;
  EXPECT_EQ(placement->slots_per_rank_max(), 2);
}

TEST_F(ExpertPlacement, RefusesTheFileOfAnotherModel) {
  EXPECT_THAT(choose_placement({.load_file = path_}, 2, 3, 2).error().message,
              HasSubstr("load.json"));
  EXPECT_FALSE(choose_placement({.load_file = path_ + "x"}, 2, 4, 2));
  ASSERT_TRUE(write_file(path_, "{\"layers\": 7}"));
  EXPECT_FALSE(choose_placement({.load_file = path_}, 2, 4, 2));
}

TEST_F(ExpertPlacement, IsMeasuredByTheMergedDocument) {
  EXPECT_DOUBLE_EQ(*merged_.find("balancedness")->as_double(), 70.0 / 120);
  EXPECT_EQ(merged_.find("sent")->dump(), "[[120,0],[0,20]]");
  EXPECT_EQ(merged_.find("sent_bytes")->dump(), "[[12000,0],[0,2000]]");
}

TEST(EplbConfig, TakesRedundantExpertsAndNothingElse) {
  EXPECT_EQ(*parse_eplb_config(""), 0);
  EXPECT_EQ(*parse_eplb_config("{\"num_redundant_experts\": 8}"), 8);
  EXPECT_THAT(parse_eplb_config("{\"window_size\": 8}").error().message, HasSubstr("window_size"));
  EXPECT_FALSE(parse_eplb_config("{\"num_redundant_experts\": -1}"));
  EXPECT_FALSE(parse_eplb_config("[]"));
}

}  // namespace
}  // namespace wideep::cmd
