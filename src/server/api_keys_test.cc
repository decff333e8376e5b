#include "server/api_keys.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace wideep::server {
namespace {

TEST(ApiKeys, AllowEveryoneWhenThereAreNone) {
  EXPECT_TRUE(ApiKeys().allows(""));
}

TEST(ApiKeys, TakePlainKeysAndDigests) {
  const auto keys = ApiKeys::parse(
      "# team keys\n\nalpha  first\r\n"
      "sha256:81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9 second # bob\n");
  ASSERT_TRUE(keys) << keys.error().message;
  EXPECT_TRUE(keys->allows("Bearer alpha"));
  EXPECT_TRUE(keys->allows("bearer bob"));
  for (const std::string header : {"", "alpha", "Bearer", "Bearer ", "Bearer alph", "Bearer alphax",
                                   "Basic alpha", "Bearer  alpha", "Bearer first"}) {
    EXPECT_FALSE(keys->allows(header)) << header;
  }
}

TEST(ApiKeys, RefuseFilesWithoutKeysOrWithBadDigests) {
  EXPECT_FALSE(ApiKeys::parse(""));
  EXPECT_FALSE(ApiKeys::parse("# nothing\n"));
  EXPECT_FALSE(ApiKeys::parse("sha256:12\n"));
  EXPECT_FALSE(ApiKeys::parse("sha256:" + std::string(64, 'x') + "\n"));
}

TEST(ApiKeys, RefuseAFileThatOthersCanRead) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("wd-keys-{}", ::getpid())).string();
  std::ofstream(path) << "alpha\n";
  ::chmod(path.c_str(), 0644);
  EXPECT_FALSE(ApiKeys::load(path));
  ::chmod(path.c_str(), 0600);
  const auto keys = ApiKeys::load(path);
  ASSERT_TRUE(keys) << keys.error().message;
  EXPECT_TRUE(keys->allows("Bearer alpha"));
  std::filesystem::remove(path);
  EXPECT_EQ(ApiKeys::load(path).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace wideep::server
