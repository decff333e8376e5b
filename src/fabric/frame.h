// Frames between nodes: 16 bytes of header, then the payload. docs/formats/ep.md has a worked one.
//
//   byte 0      kind
//   byte 1      0
//   bytes 2-3   to: the rank, on the receiving node
//   bytes 4-7   payload bytes
//   bytes 8-15  kPut: offset in the arena; kSignal: channel; kControl: kind << 32 | about
//
// All little-endian. Who sends and which epoch it is belongs to the connection.
#pragma once

#include "base/result.h"
#include "fabric/fabric.h"
#include "fabric/handover.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::fabric {

enum class FrameKind : uint8_t { kPut = 1, kSignal = 2, kBeat = 3, kControl = 4 };

struct FrameHeader {
  FrameKind kind{};
  uint8_t unused = 0;
  uint16_t to = 0;
  uint32_t payload_bytes = 0;
  uint64_t where = 0;
};

inline constexpr size_t kFrameHeaderBytes = 16;
inline constexpr size_t kSignalBytes = 56;
inline constexpr int64_t kPutBytesMax = 16 << 20;  // longer puts are sent in pieces

std::array<std::byte, kFrameHeaderBytes> encode(const FrameHeader& header);
std::array<std::byte, kSignalBytes> encode(const Signal& signal);
Signal decode_signal(std::span<const std::byte, kSignalBytes> bytes);

// kInvalidArgument unless it is a frame that `shape` allows.
Result<FrameHeader> parse_frame_header(std::span<const std::byte, kFrameHeaderBytes> bytes,
                                       const Shape& shape);

// What a receiver does with frames. All calls carry checked values.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // Where a put goes: `bytes` at `offset` of rank `to`. kInvalidArgument: not here.
  virtual Result<std::span<std::byte>> place(RankId to, int64_t offset, int64_t bytes) = 0;
  virtual Status on_signal(RankId to, ChannelId channel, const Signal& signal) = 0;
  virtual void on_beat() = 0;
  virtual void on_control(ControlMessage::Kind kind, RankId about) = 0;
};

// Takes a stream apart. Payloads of puts go straight to their place: room() is where the next bytes
// of the stream should be read to. Thread: one at a time, which calls the sink.
class FrameReader {
 public:
  FrameReader(const Shape& shape, FrameSink& sink);

  // Never empty.
  std::span<std::byte> room();

  // All that came has been consumed.
  bool is_between_frames() const { return place_.empty() && begin_ == end_; }

  // `bytes` more are in room(). An error is for good: the stream cannot be trusted any more.
  Status advance(size_t bytes);

 private:
  Status consume();
  Result<bool> consume_frame();

  const Shape& shape_;
  FrameSink& sink_;
  std::vector<std::byte> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::span<std::byte> place_;  // what is missing of the present put
};

}  // namespace wideep::fabric
