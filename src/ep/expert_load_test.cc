#include "ep/expert_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::ep {
namespace {

TEST(ExpertLoad, WritesADocumentThatReadsBackAsLoadPerExpert) {
  const Placement placement = Placement::linear(2, 4, 2);
  ExpertLoad first(2, 2, 2);
  first.add_computed(LayerId{1}, SlotId{0}, 3);
  first.add_computed(LayerId{1}, SlotId{0}, 4);
  first.add_sent(LayerId{1}, RankId{1}, 5);
  ExpertLoad second(2, 2, 2);
  second.add_computed(LayerId{1}, SlotId{1}, 9);
  const std::vector<Json> documents = {first.to_json(placement, RankId{0}, 128),
                                       second.to_json(placement, RankId{1}, 128)};
  EXPECT_EQ(documents[0].dump(),
            R"({"rank":0,"row_bytes":128,"layers":[{"layer":1,"experts":[)"
            R"({"expert":0,"slot":0,"rows":7},{"expert":1,"slot":1,"rows":0}],"sent":[0,5]}]})");
  const auto load = parse_expert_load(documents, 2, 4);
  ASSERT_TRUE(load.has_value()) << load.error().message;
  EXPECT_THAT((*load)[0], testing::ElementsAre(0, 0, 0, 0));
  EXPECT_THAT((*load)[1], testing::ElementsAre(7, 0, 0, 9));
}

TEST(ExpertLoad, RefusesDocumentsOfAnotherShape) {
  const auto refused = [](std::string_view text) {
    const std::vector<Json> documents = {*parse_json(text)};
    return !parse_expert_load(documents, 2, 4).has_value();
  };
  EXPECT_TRUE(refused("{}"));
  EXPECT_TRUE(refused(R"({"layers":[{"layer":2,"experts":[]}]})"));
  EXPECT_TRUE(refused(R"({"layers":[{"layer":0,"experts":[{"expert":4,"rows":1}]}]})"));
  EXPECT_TRUE(refused(R"({"layers":[{"layer":0,"experts":[{"expert":1,"rows":-1}]}]})"));
  EXPECT_TRUE(refused(R"({"layers":[{"layer":0,"experts":[{"expert":1,"rows":"many"}]}]})"));
  EXPECT_FALSE(refused(R"({"layers":[]})"));
}

}  // namespace
}  // namespace wideep::ep
