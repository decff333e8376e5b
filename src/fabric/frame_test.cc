#include "fabric/frame.h"

#include "base/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace wideep::fabric {
namespace {

const Shape kShape{.node_of = std::vector<NodeId>(4), .arena_bytes = 300'000, .num_channels = 2};

// Writes down what it is told; arenas are one piece of memory per rank.
class Recorder : public FrameSink {
 public:
  Recorder() : arenas_(4, std::vector<std::byte>(static_cast<size_t>(kShape.arena_bytes))) {}

  Result<std::span<std::byte>> place(RankId to, int64_t offset, int64_t bytes) override {
    if (to == RankId{3}) return invalid_argument("rank 3 is not here");
    return std::span(arenas_[subscript(to)])
        .subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }

  Status on_signal(RankId to, ChannelId channel, const Signal& signal) override {
    log_ +=
        fmt::format("signal {} {} {} {};", index(to), index(channel), signal.seq, signal.words[4]);
    return {};
  }

  void on_beat() override { log_ += "beat;"; }

  void on_control(ControlMessage::Kind kind, RankId about) override {
    log_ += fmt::format("control {} {};", static_cast<int>(kind), index(about));
  }

  std::string log_;
  std::vector<std::vector<std::byte>> arenas_;
};

void append(std::vector<std::byte>& stream,
            const FrameHeader& header,
            std::span<const std::byte> payload = {}) {
  const auto bytes = encode(header);
  stream.insert(stream.end(), bytes.begin(), bytes.end());
  stream.insert(stream.end(), payload.begin(), payload.end());
}

Status feed(FrameReader& reader, std::span<const std::byte> stream, Random& random) {
  while (!stream.empty()) {
    const std::span<std::byte> room = reader.room();
    const size_t count =
        std::min({room.size(), stream.size(), 1 + static_cast<size_t>(random.below(5000))});
    std::memcpy(room.data(), stream.data(), count);
    stream = stream.subspan(count);
    WD_TRY(reader.advance(count));
  }
  return {};
}

std::vector<std::byte> pattern(size_t bytes, uint64_t seed) {
  std::vector<std::byte> result(bytes);
  Random random(seed);
  for (std::byte& b : result)
    b = static_cast<std::byte>(random.bits());
  return result;
}

TEST(Frame, TheWorkedExampleOfTheDocumentation) {
  // docs/formats/ep.md: put 8 bytes at offset 4096 of rank 2.
  std::string text;
  for (const std::byte b :
       encode(FrameHeader{.kind = FrameKind::kPut, .to = 2, .payload_bytes = 8, .where = 4096}))
    text += fmt::format("{:02x} ", static_cast<int>(b));
  EXPECT_EQ(text, "01 00 02 00 08 00 00 00 00 10 00 00 00 00 00 00 ");
}

TEST(FrameReader, ReadsAStreamHoweverItIsCut) {
  std::vector<std::byte> stream;
  const auto large = pattern(200'000, 1);
  const auto small = pattern(10, 2);
  append(stream, {.kind = FrameKind::kPut, .to = 1, .payload_bytes = 200'000, .where = 50'000},
         large);
  append(stream, {.kind = FrameKind::kSignal, .to = 1, .payload_bytes = 56, .where = 1},
         encode(Signal{.seq = 9, .words = {0, 0, 0, 0, 4}}));
  append(stream, {.kind = FrameKind::kBeat});
  append(stream, {.kind = FrameKind::kPut, .to = 0, .payload_bytes = 10, .where = 5}, small);
  append(stream, {.kind = FrameKind::kPut, .to = 0, .payload_bytes = 0, .where = 300'000});
  append(stream, {.kind = FrameKind::kControl, .where = (uint64_t{2} << 32) | 3});
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Recorder recorder;
    FrameReader reader(kShape, recorder);
    Random random(seed);
    ASSERT_TRUE(feed(reader, stream, random).has_value());
    EXPECT_EQ(recorder.log_, "signal 1 1 9 4;beat;control 2 3;");
    EXPECT_EQ(std::memcmp(recorder.arenas_[1].data() + 50'000, large.data(), large.size()), 0);
    EXPECT_EQ(std::memcmp(recorder.arenas_[0].data() + 5, small.data(), small.size()), 0);
  }
}

TEST(FrameReader, RefusesFramesThatTheShapeDoesNotAllow) {
  const auto refused = [](const FrameHeader& header) {
    Recorder recorder;
    FrameReader reader(kShape, recorder);
    std::vector<std::byte> stream;
    append(stream, header, std::vector<std::byte>(64));
    Random random(1);
    return !feed(reader, stream, random).has_value();
  };
  EXPECT_TRUE(refused({.kind = FrameKind{0}}));
  EXPECT_TRUE(refused({.kind = FrameKind{5}}));
  EXPECT_TRUE(refused({.kind = FrameKind::kBeat, .to = 4}));
  EXPECT_TRUE(refused({.kind = FrameKind::kBeat, .payload_bytes = 1}));
  EXPECT_TRUE(refused({.kind = FrameKind::kPut, .payload_bytes = 64, .where = 299'937}));
  EXPECT_TRUE(refused({.kind = FrameKind::kPut, .payload_bytes = 64, .where = UINT64_MAX}));
  EXPECT_TRUE(refused({.kind = FrameKind::kPut, .payload_bytes = kPutBytesMax + 1}));
  EXPECT_TRUE(refused({.kind = FrameKind::kPut, .to = 3, .payload_bytes = 64}));
  EXPECT_TRUE(refused({.kind = FrameKind::kSignal, .payload_bytes = 55}));
  EXPECT_TRUE(refused({.kind = FrameKind::kSignal, .payload_bytes = 56, .where = 2}));
  EXPECT_TRUE(refused({.kind = FrameKind::kControl, .where = 4}));
}

}  // namespace
}  // namespace wideep::fabric
