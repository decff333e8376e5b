#include "fabric/shared_memory.h"

#include "base/memory.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

namespace wideep::fabric {
namespace {

constexpr int64_t kBytes = 3 * static_cast<int64_t>(kHugePage) + 8192;

// By one who writes and one who reads.
std::array<Result<SharedMemory>, 2> mapped_by_others(const Result<SharedMemory>& memory) {
  if (!memory) return {std::unexpected(memory.error()), std::unexpected(memory.error())};
  return {SharedMemory::map(UniqueFd(dup(memory->fd())), kBytes),
          SharedMemory::map_read_only(UniqueFd(dup(memory->fd())), kBytes)};
}

bool is_at_huge_page(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kHugePage == 0;
}

// Of the mapping that begins at `address`.
int64_t bytes_mapped_as_huge_pages(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const std::string begin = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(address));
  std::string word;
  while (maps >> word && word.find(begin) != 0) {
  }
  while (maps >> word && word != "ShmemPmdMapped:") {
  }
  int64_t kib = 0;
  maps >> kib;
  return kib * 1024;
}

// Whether Linux (6.1 or later, not told to deny it) makes a huge page of shared memory for the
// asking, tried by the plainest means.
bool machine_has_huge_pages() {
  constexpr int kCollapse = 25;
  const UniqueFd fd(memfd_create("probe", MFD_CLOEXEC));
  EXPECT_EQ(ftruncate(fd.get(), kHugePage), 0);
  const std::span<std::byte> room = map_huge_aligned(kHugePage);
  void* data =
      mmap(room.data(), kHugePage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd.get(), 0);
  *static_cast<volatile char*>(data) = 1;
  const bool done = madvise(data, kHugePage, kCollapse) == 0;
  munmap(room.data(), room.size());
  return done;
}

TEST(SharedMemory, IsRefusedUnsealedOrOfAnotherSize) {
  auto memory = SharedMemory::create("test", 8192);
  ASSERT_TRUE(memory.has_value());
  EXPECT_TRUE(SharedMemory::map(UniqueFd(dup(memory->fd())), 8192).has_value());
  EXPECT_FALSE(SharedMemory::map(UniqueFd(dup(memory->fd())), 4096).has_value());
  UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(unsealed.get(), 8192), 0);
  EXPECT_FALSE(SharedMemory::map(std::move(unsealed), 8192).has_value());
}

TEST(SharedMemory, IsZeroAndTheSameForAllWhoMapIt) {
  auto memory = SharedMemory::create("test", kBytes);
  auto [other, reader] = mapped_by_others(memory);
  ASSERT_TRUE(memory.has_value() && other.has_value() && reader.has_value());
  for (const int64_t at : {int64_t{0}, kBytes / 2, kBytes - 1}) {
    const auto i = static_cast<size_t>(at);
    EXPECT_EQ(memory->bytes()[i], std::byte{0});
    other->bytes()[i] = std::byte{7};
    EXPECT_EQ(memory->bytes()[i], std::byte{7});
    EXPECT_EQ(std::as_const(*reader).bytes()[i], std::byte{7});
  }
}

TEST(SharedMemory, IsOfHugePagesForAllWhoMapItWhereTheMachineHasSuch) {
  auto memory = SharedMemory::create("test", kBytes);
  auto [other, reader] = mapped_by_others(memory);
  ASSERT_TRUE(memory.has_value() && other.has_value() && reader.has_value());
  for (SharedMemory* each : {&*memory, &*other, &*reader})
    EXPECT_TRUE(is_at_huge_page(each->bytes().data()));
  if (!machine_has_huge_pages()) GTEST_SKIP() << "no huge pages for shared memory here";
  int sum = 0;
  for (size_t i = 0; i < static_cast<size_t>(kBytes); i += kHugePage)
    sum += static_cast<int>(std::as_const(*reader).bytes()[i]);
  EXPECT_EQ(sum, 0);
  for (SharedMemory* each : {&*memory, &*other, &*reader})
    EXPECT_EQ(bytes_mapped_as_huge_pages(each->bytes().data()),
              3 * static_cast<int64_t>(kHugePage));
}

}  // namespace
}  // namespace wideep::fabric
