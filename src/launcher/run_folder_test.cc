#include "launcher/run_folder.h"

#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>

namespace wideep::launcher {
namespace {

std::string fresh_parent() {
  std::string path = ::testing::TempDir() + "run_folder_XXXXXX";
  EXPECT_NE(mkdtemp(path.data()), nullptr);
  return path;
}

mode_t permissions(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  return status.st_mode & 0777;
}

int count_entries(const std::string& path) {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path))
    ++count;
  return count;
}

TEST(RunFolder, IsForItsOwnerOnlyAndGoesWithIt) {
  const std::string parent = fresh_parent();
  std::string path;
  {
    const auto folder = RunFolder::create(parent);
    ASSERT_TRUE(folder) << folder.error().message;
    path = folder->path();
    EXPECT_EQ(permissions(path), 0700U);
    const auto key = folder->make_key("a.key");
    ASSERT_TRUE(key);
    EXPECT_EQ(permissions(*key), 0600U);
    EXPECT_EQ(read_file(*key, 1000)->size(), 65U);
    EXPECT_NE(*read_file(*key, 1000), *read_file(*folder->make_key("b.key"), 1000));
    EXPECT_FALSE(folder->make_key("a.key"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(count_entries(parent), 0);
}

TEST(RunFolder, RemovesWhatAKilledOwnerLeftBehindAndNothingElse) {
  const std::string parent = fresh_parent();
  const auto alive = RunFolder::create(parent);
  std::filesystem::create_directory(parent + "/wideep-up-notours");  // without a lock
  std::array<int, 2> ready;
  ASSERT_EQ(pipe(ready.data()), 0);
  const int child = fork();
  if (child == 0) {
    const auto folder = RunFolder::create(parent);
    const bool ok = folder.has_value() && write(ready[1], "x", 1) == 1;
    while (ok)
      pause();
    _exit(1);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(count_entries(parent), 3);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  const auto next = RunFolder::create(parent);
  ASSERT_TRUE(next);
  EXPECT_EQ(count_entries(parent), 3);  // alive, notours, next
  EXPECT_TRUE(std::filesystem::exists(alive->path()));
  close(ready[0]);
  close(ready[1]);
}

TEST(RunFolder, SaysWhereItCannotBe) {
  const auto folder = RunFolder::create("/no/such/folder");
  ASSERT_FALSE(folder);
  EXPECT_NE(folder.error().message.find("/no/such/folder"), std::string::npos);
}

}  // namespace
}  // namespace wideep::launcher
