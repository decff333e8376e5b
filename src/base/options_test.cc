#include "base/options.h"

#include "base/test_folder.h"

#include <gtest/gtest.h>

#include <fstream>

namespace wideep {
namespace {

struct Example {
  std::string host = "127.0.0.1";
  int64_t length = 4096;
  bool caching = true;
  std::vector<std::string> keys;
  std::string model;
  std::string help;
  OptionSet set{"serve", "Serve a model."};

  Example() {
    set.add_positional("MODEL", &model, "Folder of the model.", true);
    set.add("--host", &host, {.group = "Server", .help = "Address to listen on."});
    set.add("--max-model-len", &length, {.group = "Engine", .help = "Longest context."});
    set.add("--enable-prefix-caching", &caching, {.group = "Engine", .help = "Reuse KV."});
    set.add("--api-key", &keys, {.group = "Server", .help = "Key that clients must send."});
    set.refuse("--tensor-parallel-size", "attention is data parallel", {"1"});
    set.accept("--enforce-eager", "there are no graphs");
  }

  Result<OptionSet::Outcome> parse(std::vector<std::string> arguments) {
    return set.parse(arguments, &help);
  }
};

TEST(OptionSet, ReadsFlagsInEverySpelling) {
  Example example;
  ASSERT_TRUE(
      example.parse({"m", "--host=::1", "--max_model_len", "8K", "--no-enable-prefix-caching",
                     "--api-key", "a", "--api-key", "b", "--tensor-parallel-size", "1"}));
  EXPECT_EQ(example.model, "m");
  EXPECT_EQ(example.host, "::1");
  EXPECT_EQ(example.length, 8192);
  EXPECT_FALSE(example.caching);
  EXPECT_EQ(example.keys, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(example.set.was_set("--host"));
}

TEST(OptionSet, GivesArgumentsThatAnotherProcessReadsTheSameFrom) {
  Example example;
  ASSERT_TRUE(example.parse({"m", "--host=--odd", "--max_model_len", "8K",
                             "--no-enable-prefix-caching", "--api-key", "a", "--api-key", "b c"}));
  example.length = 77;  // set by the program
  const std::vector<std::string> arguments = example.set.arguments();
  EXPECT_EQ(arguments, (std::vector<std::string>{"m", "--host=--odd", "--max-model-len=77",
                                                 "--enable-prefix-caching=off", "--api-key=a",
                                                 "--api-key=b c"}));
  Example other;
  ASSERT_TRUE(other.parse(arguments));
  EXPECT_EQ(other.set.arguments(), arguments);
}

TEST(OptionSet, SuggestsTheNearestFlag) {
  Example example;
  const auto outcome = example.parse({"m", "--max-model-length", "1"});
  ASSERT_FALSE(outcome);
  EXPECT_NE(outcome.error().message.find("did you mean --max-model-len?"), std::string::npos);
}

TEST(OptionSet, RefusesWhatIsNotImplementedByName) {
  Example example;
  const auto outcome = example.parse({"m", "--tensor-parallel-size", "2"});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().message,
            "--tensor-parallel-size is not implemented: attention is data parallel");
}

TEST(OptionSet, TakesASwitchForWhatIsDoneAnywayAndRefusesItsOpposite) {
  Example example;
  EXPECT_TRUE(example.parse({"m", "--enforce-eager"}));
  for (const char* flag : {"--no-enforce-eager", "--enforce-eager=off"}) {
    const auto outcome = example.parse({"m", flag});
    ASSERT_FALSE(outcome) << flag;
    EXPECT_NE(outcome.error().message.find("there are no graphs"), std::string::npos);
  }
}

TEST(OptionSet, LetsFlagsBeatTheFile) {
  const TestFolder folder;
  const std::string path = folder / "options.yaml";
  std::ofstream(path) << "max-model-len: 1k\nhost: 0.0.0.0\napi_key: [x, y]\n";
  Example example;
  ASSERT_TRUE(example.parse({"m", "--config", path, "--host", "::1"}));
  EXPECT_EQ(example.length, 1000);
  EXPECT_EQ(example.host, "::1");
  EXPECT_EQ(example.keys.size(), 2U);
}

TEST(OptionSet, NamesFileAndKeyOfABadValue) {
  const TestFolder folder;
  const std::string path = folder / "bad.yaml";
  std::ofstream(path) << "max-model-len: many\n";
  Example example;
  const auto outcome = example.parse({"m", "--config", path});
  ASSERT_FALSE(outcome);
  EXPECT_NE(outcome.error().message.find("max-model-len: 'many' is not an integer"),
            std::string::npos);
}

TEST(OptionSet, MissingArgumentsAndValuesAreErrors) {
  EXPECT_FALSE(Example().parse({}));
  EXPECT_FALSE(Example().parse({"m", "--host"}));
  EXPECT_FALSE(Example().parse({"m", "extra"}));
}

TEST(OptionSet, HelpCanBeSearched) {
  Example example;
  ASSERT_EQ(example.parse({"--help=caching"}), OptionSet::Outcome::kHelpShown);
  EXPECT_NE(example.help.find("--enable-prefix-caching"), std::string::npos);
  EXPECT_NE(example.help.find("WIDEEP_ENABLE_PREFIX_CACHING"), std::string::npos);
  EXPECT_EQ(example.help.find("--host"), std::string::npos);
}

TEST(Options, KeepIntegersInTheirRange) {
  int64_t count = 5;
  int32_t rank = -1;
  int64_t size = 8;
  OptionSet options("c", "s");
  options.add("--count", &count, {.group = "G", .help = "h", .min = 1});
  options.add("--rank", &rank, {.group = "G", .help = "h"});
  options.add("--size", &size, {.group = "G", .help = "h", .max = 99});
  const auto error_of = [&](const std::string& argument) {
    const auto outcome = options.parse(std::vector{argument}, nullptr);
    return outcome ? std::string() : outcome.error().message;
  };
  EXPECT_EQ(error_of("--count=0"), "--count: at least 1 is expected, not 0");
  EXPECT_EQ(error_of("--size=100"), "--size: at most 99 is expected, not 100");
  EXPECT_EQ(error_of("--size=-1"), "--size: at least 0 is expected, not -1");
  EXPECT_EQ(error_of("--rank=-2"), "--rank: at least -1 is expected, not -2");
  EXPECT_EQ(error_of("--rank=3G"), "--rank: at most 2147483647 is expected, not 3G");
  for (const char* good : {"--count=1", "--size=0", "--size=99", "--rank=-1"})
    EXPECT_EQ(error_of(good), "") << good;
}

TEST(HumanInteger, KnowsDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_human_integer("25.6k"), 25600);
  EXPECT_EQ(parse_human_integer("2G"), int64_t{2} << 30);
  EXPECT_EQ(parse_human_integer("-3"), -3);
  EXPECT_FALSE(parse_human_integer("99999999999T"));
  EXPECT_FALSE(parse_human_integer("1.5"));
  EXPECT_FALSE(parse_human_integer(""));
}

}  // namespace
}  // namespace wideep
