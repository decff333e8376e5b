#include "http/api_keys.h"

#include "base/file.h"
#include "base/test_folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace wideep::http {
namespace {

class ApiKeyFiles : public ::testing::Test {
 protected:
  std::string key_file(const std::string& name, const std::string& text, mode_t mode = 0600) {
    const std::string path = folder_ / name;
    EXPECT_TRUE(write_file(path, text));
    chmod(path.c_str(), mode);
    return path;
  }

  const TestFolder folder_;
};

TEST(ApiKeys, WithoutKeysEverybodyMayCall) {
  EXPECT_EQ(ApiKeys().caller({}), "");
}

TEST_F(ApiKeyFiles, NamesTheCallerByEitherHeader) {
  const std::string file =
      key_file("keys", "# people\nann secret-a\nbob sha256:" + to_hex(sha256({})) + "\n");
  const auto keys = ApiKeys::load({"flag"}, file);
  ASSERT_TRUE(keys) << keys.error().message;
  EXPECT_EQ(keys->caller({{"Authorization", "Bearer secret-a"}}), "ann");
  EXPECT_EQ(keys->caller({{"x-api-key", "flag"}}), "key 1");
  EXPECT_FALSE(keys->caller({{"authorization", "Bearer wrong"}}));
  EXPECT_FALSE(keys->caller({{"authorization", "Basic secret-a"}}));
  EXPECT_FALSE(
      keys->caller({{"authorization", "Bearer "}}));  // bob's digest is that of the empty key
  EXPECT_FALSE(keys->caller({}));
}

TEST_F(ApiKeyFiles, PassOnAsAFileThatDoesNotTellThem) {
  const auto keys = ApiKeys::load({"flag#1"}, key_file("keys", "ann secret-a\n"));
  ASSERT_TRUE(keys) << keys.error().message;
  const std::string text = keys->file_text();
  EXPECT_EQ(text.find("secret-a"), std::string::npos);
  const auto again = ApiKeys::load({}, key_file("again", text));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->caller({{"authorization", "Bearer secret-a"}}), "ann");
  EXPECT_EQ(again->caller({{"authorization", "Bearer flag#1"}}), "key-1");
  EXPECT_FALSE(again->caller({{"authorization", "Bearer wrong"}}));
}

TEST_F(ApiKeyFiles, RefusesFilesThatAreOpenEmptyOrMalformed) {
  EXPECT_FALSE(ApiKeys::load({}, key_file("open", "a b\n", 0644)));
  EXPECT_FALSE(ApiKeys::load({}, key_file("empty", "# none\n")));
  EXPECT_FALSE(ApiKeys::load({}, key_file("one-word", "a\n")));
  EXPECT_FALSE(ApiKeys::load({}, key_file("bad-digest", "a sha256:12\n")));
  EXPECT_FALSE(ApiKeys::load({""}, ""));
}

}  // namespace
}  // namespace wideep::http
