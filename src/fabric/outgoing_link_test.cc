#include "fabric/outgoing_link.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace wideep::fabric {
namespace {

// A socket that takes so many bytes and then would block.
class NarrowStream final : public Stream {
 public:
  explicit NarrowStream(size_t& room) : room_(room) {}

  int fd() const override { return -1; }

  Result<size_t> read(std::span<std::byte>) override { return 0; }

  Result<size_t> write(std::span<const std::byte> bytes) override {
    const size_t count = std::min(bytes.size(), room_);
    room_ -= count;
    return count;
  }

 private:
  size_t& room_;
};

TEST(OutgoingLink, CountsWhatItWasGivenOnceWhetherItHasLeftOrWaits) {
  size_t room = 0;
  std::vector<bool> backlog;
  OutgoingLink link(std::make_unique<NarrowStream>(room),
                    [&](bool is_waiting) { backlog.push_back(is_waiting); });
  const std::array<std::byte, 100> row{};
  link.put(RankId{1}, 0, row);
  link.signal(RankId{1}, ChannelId{0}, {.seq = 1});
  constexpr uint64_t kBytes = (kFrameHeaderBytes + 100) + (kFrameHeaderBytes + kSignalBytes);
  EXPECT_EQ(link.counters().bytes_sent, kBytes);
  EXPECT_EQ(link.counters().frames_sent, 2U);
  EXPECT_EQ(link.queued_bytes(), static_cast<int64_t>(kBytes));
  room = 60;
  ASSERT_TRUE(link.flush());
  EXPECT_EQ(link.queued_bytes(), static_cast<int64_t>(kBytes) - 60);
  room = 1000;
  ASSERT_TRUE(link.flush());
  EXPECT_EQ(link.queued_bytes(), 0);
  EXPECT_EQ(link.counters().bytes_sent, kBytes);
  EXPECT_EQ(room, 1000 - (kBytes - 60));
  EXPECT_EQ(backlog, (std::vector<bool>{true, false}));
}

TEST(OutgoingLink, BeatsAndControlAreNotCounted) {
  size_t room = 1000;
  OutgoingLink link(std::make_unique<NarrowStream>(room), [](bool) {});
  link.beat();
  link.control({ControlMessage::Kind::kLeaving, 0, 0});
  EXPECT_LT(room, 1000U);
  EXPECT_EQ(link.counters().bytes_sent, 0U);
  EXPECT_EQ(link.counters().frames_sent, 0U);
}

}  // namespace
}  // namespace wideep::fabric
