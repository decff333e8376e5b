#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

namespace wideep {
namespace {

TEST(File, ReadsBackWhatWasWritten) {
  const std::string path = testing::TempDir() + "/file_test.txt";
  ASSERT_TRUE(write_file(path, "hello world"));
  EXPECT_EQ(*read_file(path, 100), "hello world");
  const auto file = File::open(path);
  ASSERT_TRUE(file);
  std::array<std::byte, 5> part;
  ASSERT_TRUE(file->read_at(6, part));
  EXPECT_EQ(static_cast<char>(part[0]), 'w');
}

TEST(File, SaysWhatIsMissingOrTooLarge) {
  const std::string path = testing::TempDir() + "/file_test_limits.txt";
  ASSERT_TRUE(write_file(path, "12345"));
  EXPECT_EQ(read_file(path, 4).error().code, ErrorCode::kExhausted);
  EXPECT_EQ(read_file(path + ".none", 4).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(read_file(testing::TempDir(), 4).error().code, ErrorCode::kUnavailable);
  std::array<std::byte, 3> part;
  EXPECT_EQ(File::open(path)->read_at(3, part).error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(write_file("/nonexistent/x", "").error().code, ErrorCode::kUnavailable);
}

TEST(File, RefusesAPipeInsteadOfWaitingForAWriter) {
  const std::string path = testing::TempDir() + "/file_test.pipe";
  ::unlink(path.c_str());
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(File::open(path).error().code, ErrorCode::kUnavailable);
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace wideep
