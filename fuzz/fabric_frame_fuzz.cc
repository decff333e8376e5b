// modules: fabric
// A stream of frames, cut anywhere: nothing is written outside its place, whatever comes.
#include "base/check.h"
#include "fabric/frame.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace wideep::fabric {
namespace {

const Shape kShape{.node_of = std::vector<NodeId>(3), .arena_bytes = 100'000, .num_channels = 4};

class Sink final : public FrameSink {
 public:
  Result<std::span<std::byte>> place(RankId to, int64_t offset, int64_t bytes) override {
    WD_CHECK(index(to) >= 0);
    WD_CHECK(index(to) < 3);
    WD_CHECK(offset >= 0);
    WD_CHECK(bytes >= 0);
    WD_CHECK(offset + bytes <= kShape.arena_bytes);
    return std::span(arena_).subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }

  Status on_signal(RankId, ChannelId channel, const Signal&) override {
    WD_CHECK(index(channel) >= 0);
    WD_CHECK(index(channel) < kShape.num_channels);
    return {};
  }

  void on_beat() override {}

  void on_control(ControlMessage::Kind, RankId about) override {
    WD_CHECK(index(about) >= 0);
    WD_CHECK(index(about) < 3);
  }

 private:
  std::vector<std::byte> arena_ = std::vector<std::byte>(100'000);
};

}  // namespace
}  // namespace wideep::fabric

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideep::fabric;
  Sink sink;
  FrameReader reader(kShape, sink);
  const size_t cut = size == 0 ? 1 : 1 + data[0];  // the first byte says in what pieces
  while (size > 0) {
    const std::span<std::byte> room = reader.room();
    WD_CHECK(!room.empty());
    const size_t count = std::min({room.size(), size, cut});
    std::memcpy(room.data(), data, count);
    data += count;
    size -= count;
    if (!reader.advance(count)) return 0;
  }
  return 0;
}
