#include "base/file.h"

#include "base/random.h"
#include "base/test_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>

namespace wideep {
namespace {

TEST(File, ReadsBackWhatWasWritten) {
  const TestFolder folder;
  const std::string path = folder / "text";
  ASSERT_TRUE(write_file(path, "hello world"));
  EXPECT_EQ(*read_file(path, 100), "hello world");
  const auto file = File::open(path);
  ASSERT_TRUE(file);
  std::array<std::byte, 5> part;
  ASSERT_TRUE(file->read_at(6, part));
  EXPECT_EQ(static_cast<char>(part[0]), 'w');
}

TEST(File, SaysWhatIsMissingOrTooLarge) {
  const TestFolder folder;
  const std::string path = folder / "five";
  ASSERT_TRUE(write_file(path, "12345"));
  EXPECT_EQ(read_file(path, 4).error().code, ErrorCode::kExhausted);
  EXPECT_EQ(read_file(path + ".none", 4).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(read_file(folder.path(), 4).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(read_file(path + "/none", 4).error().code, ErrorCode::kInvalidArgument);
  std::array<std::byte, 3> part;
  EXPECT_EQ(File::open(path)->read_at(3, part).error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(write_file("/nonexistent/x", "").error().code, ErrorCode::kUnavailable);
}

TEST(File, GivesASecretOnlyIfNobodyElseCanReadIt) {
  const TestFolder folder;
  const std::string path = folder / "secret";
  ASSERT_TRUE(write_file(path, "secret"));
  for (const mode_t mode : {0644, 0640, 0604, 0660, 0610}) {
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
    EXPECT_EQ(read_secret(path, 100).error().code, ErrorCode::kInvalidArgument) << mode;
  }
  for (const mode_t mode : {0600, 0400}) {
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
    EXPECT_EQ(*read_secret(path, 100), "secret");
  }
  EXPECT_EQ(read_secret(path, 5).error().code, ErrorCode::kExhausted);
}

TEST(File, RefusesAPipeInsteadOfWaitingForAWriter) {
  const TestFolder folder;
  const std::string path = folder / "pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(File::open(path).error().code, ErrorCode::kInvalidArgument);
}

// Large reads that the page cache cannot serve go past it; what they give must be the same, at any
// offset and up to the file's end.
TEST(File, ReadsLargeRangesThatAreNotCached) {
  const TestFolder folder;
  const std::string path = folder / "large";
  std::string content((size_t{9} << 20) + 1234, ' ');
  Random random(1);
  for (char& c : content)
    c = static_cast<char>(random.below(256));
  ASSERT_TRUE(write_file(path, content));
  const Result<File> file = File::open(path);
  ASSERT_TRUE(file.has_value());
  for (const size_t offset : {size_t{0}, size_t{1}, size_t{4096}, size_t{1'000'001}}) {
    fsync(file->descriptor());
    posix_fadvise(file->descriptor(), 0, 0, POSIX_FADV_DONTNEED);
    // A part of it is cached again.
    std::string part(100'000, ' ');
    ASSERT_TRUE(file->read_at(6'000'000, std::as_writable_bytes(std::span(part))));
    std::string read(content.size() - offset, ' ');
    ASSERT_TRUE(
        file->read_at(static_cast<int64_t>(offset), std::as_writable_bytes(std::span(read))));
    EXPECT_TRUE(read == content.substr(offset)) << offset;
  }
  std::string beyond(content.size(), ' ');
  const Status status = file->read_at(1, std::as_writable_bytes(std::span(beyond)));
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kDataLoss);
}

}  // namespace
}  // namespace wideep
