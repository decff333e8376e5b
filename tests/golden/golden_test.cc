#include "model/golden.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace wideep::model {
namespace {

std::string folder(std::string_view name) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, name);
}

struct Case {
  std::string_view set;
  math::Isa isa;
  math::Precision precision;
  bool expanded_prompts = false;
};

class Golden : public testing::TestWithParam<Case> {};

TEST_P(Golden, ValuesAreWithinTheirTolerances) {
  const Case& c = GetParam();
  ThreadPool pool({.num_threads = 1});
  LoadOptions load{.isa = c.isa, .rows_max = 256, .block_tokens = 16};
  load.weights.precision = c.precision;
  load.weights.expanded_prompts = c.expanded_prompts;
  load.weights.draft = c.set == "dsv3-tiny-mtp";
  const auto report = check_golden(folder(c.set), pool, load);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->passed()) << report->describe();
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const std::string_view set : {"dsv3-tiny-bf16", "dsv3-tiny-fp8", "dsv2-tiny-bf16",
                                     "qwen3moe-tiny-bf16", "dsv3-tiny-mtp"}) {
    for (const math::Isa isa : math::supported_isas()) {
      for (const auto precision : {math::Precision::kF32, math::Precision::kMixed}) {
        cases.push_back({set, isa, precision});
        if (set != "qwen3moe-tiny-bf16") cases.push_back({set, isa, precision, true});
      }
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Sets, Golden, testing::ValuesIn(all_cases()), [](const auto& info) {
  std::string name = fmt::format("{}_{}_{}{}", info.param.set, math::name(info.param.isa),
                                 info.param.precision == math::Precision::kF32 ? "f32" : "mixed",
                                 info.param.expanded_prompts ? "_expanded" : "");
  std::ranges::replace(name, '-', '_');
  return name;
});

// The check itself must be able to fail: rows that a wire rounds to bf16 are not the f32 path.
TEST(GoldenCheck, FindsRowsThatWereRounded) {
  ThreadPool pool({.num_threads = 1});
  LoadOptions load{.dispatch_format = math::RowFormat::kBf16, .rows_max = 256, .block_tokens = 16};
  load.weights.precision = math::Precision::kF32;
  const auto report = check_golden(folder("dsv3-tiny-mtp"), pool, load);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_FALSE(report->passed());
  EXPECT_NE(report->describe().find("FAIL one-shot prompt1.hidden.2"), std::string::npos)
      << report->describe();
}

TEST(GoldenCheck, RefusesExpandedPromptsWithoutMla) {
  ThreadPool pool({.num_threads = 1});
  LoadOptions load{.rows_max = 256, .block_tokens = 16};
  load.weights.expanded_prompts = true;
  const auto report = check_golden(folder("qwen3moe-tiny-bf16"), pool, load);
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().message.find("qwen3_moe has no MLA"), std::string::npos)
      << report.error().message;
}

TEST(GoldenCheck, SplitsPromptsThatAreLongerThanAStep) {
  ThreadPool pool({.num_threads = 2});
  LoadOptions load{.rows_max = 24, .block_tokens = 64};
  load.weights.precision = math::Precision::kF32;
  const auto report = check_golden(folder("qwen3moe-tiny-bf16"), pool, load);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->passed()) << report->describe();
}

TEST(GoldenCheck, SaysWhenAFolderHasNoExpectedValues) {
  ThreadPool pool({.num_threads = 1});
  const auto report = check_golden(folder("bad/ok-reference"), pool, {});
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().message.find("golden.safetensors"), std::string::npos);
}

}  // namespace
}  // namespace wideep::model
