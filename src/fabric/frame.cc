#include "fabric/frame.h"

#include <algorithm>
#include <cstring>

namespace wideep::fabric {
namespace {

constexpr size_t kBufferBytes = 64 << 10;

static_assert(sizeof(FrameHeader) == kFrameHeaderBytes);
static_assert(sizeof(Signal) == kSignalBytes);
static_assert(kBufferBytes >= kFrameHeaderBytes + kSignalBytes);

Status check_payload(const FrameHeader& header, int64_t bytes) {
  if (header.payload_bytes == bytes) return {};
  return invalid_argument("frame of kind {} with {} payload bytes, {} expected",
                          static_cast<int>(header.kind), header.payload_bytes, bytes);
}

}  // namespace

std::array<std::byte, kFrameHeaderBytes> encode(const FrameHeader& header) {
  std::array<std::byte, kFrameHeaderBytes> bytes;
  std::memcpy(bytes.data(), &header, bytes.size());
  return bytes;
}

std::array<std::byte, kSignalBytes> encode(const Signal& signal) {
  std::array<std::byte, kSignalBytes> bytes;
  std::memcpy(bytes.data(), &signal, bytes.size());
  return bytes;
}

Signal decode_signal(std::span<const std::byte, kSignalBytes> bytes) {
  Signal signal;
  std::memcpy(&signal, bytes.data(), bytes.size());
  return signal;
}

Result<FrameHeader> parse_frame_header(std::span<const std::byte, kFrameHeaderBytes> bytes,
                                       const Shape& shape) {
  FrameHeader header;
  std::memcpy(&header, bytes.data(), bytes.size());
  if (header.to >= shape.num_ranks())
    return invalid_argument("frame for rank {} of {}", header.to, shape.num_ranks());
  switch (header.kind) {
    case FrameKind::kPut:
      if (header.payload_bytes > kPutBytesMax ||
          header.where > static_cast<uint64_t>(shape.arena_bytes) ||
          header.payload_bytes > static_cast<uint64_t>(shape.arena_bytes) - header.where)
        return invalid_argument("frame puts {} bytes at {} of an arena of {}", header.payload_bytes,
                                header.where, shape.arena_bytes);
      return header;
    case FrameKind::kSignal:
      WD_TRY(check_payload(header, kSignalBytes));
      if (header.where >= static_cast<uint64_t>(shape.num_channels))
        return invalid_argument("frame signals channel {} of {}", header.where, shape.num_channels);
      return header;
    case FrameKind::kBeat:
      WD_TRY(check_payload(header, 0));
      return header;
    case FrameKind::kControl:
      WD_TRY(check_payload(header, 0));
      if ((header.where & UINT32_MAX) >= static_cast<uint64_t>(shape.num_ranks()))
        return invalid_argument("frame about rank {} of {}", header.where & UINT32_MAX,
                                shape.num_ranks());
      return header;
  }
  return invalid_argument("frame of kind {}", static_cast<int>(header.kind));
}

FrameReader::FrameReader(const Shape& shape, FrameSink& sink)
    : shape_(shape), sink_(sink), buffer_(kBufferBytes) {}

std::span<std::byte> FrameReader::room() {
  if (!place_.empty()) return place_;
  return std::span(buffer_).subspan(end_);
}

Status FrameReader::advance(size_t bytes) {
  if (!place_.empty()) {
    place_ = place_.subspan(bytes);
    return {};
  }
  end_ += bytes;
  return consume();
}

// Takes whole frames out of the buffer; what is left moves to its front, so that there is room.
Status FrameReader::consume() {
  for (;;) {
    WD_ASSIGN_OR_RETURN(const bool more, consume_frame());
    if (!more) break;
  }
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  return {};
}

// False when the buffer holds no further frame, or the rest of a put is still to come.
Result<bool> FrameReader::consume_frame() {
  const auto data = std::span<const std::byte>(buffer_).subspan(begin_, end_ - begin_);
  if (data.size() < kFrameHeaderBytes) return false;
  WD_ASSIGN_OR_RETURN(const FrameHeader header,
                      parse_frame_header(data.first<kFrameHeaderBytes>(), shape_));
  const auto payload = data.subspan(kFrameHeaderBytes);
  const RankId to{header.to};
  switch (header.kind) {
    case FrameKind::kPut: {
      WD_ASSIGN_OR_RETURN(
          place_, sink_.place(to, static_cast<int64_t>(header.where), header.payload_bytes));
      const size_t here = std::min(payload.size(), place_.size());
      std::memcpy(place_.data(), payload.data(), here);
      place_ = place_.subspan(here);
      begin_ += kFrameHeaderBytes + here;
      return place_.empty();
    }
    case FrameKind::kSignal:
      if (payload.size() < kSignalBytes) return false;
      begin_ += kFrameHeaderBytes + kSignalBytes;
      WD_TRY(sink_.on_signal(to, ChannelId{static_cast<int32_t>(header.where)},
                             decode_signal(payload.first<kSignalBytes>())));
      return true;
    case FrameKind::kBeat:
      sink_.on_beat();
      break;
    case FrameKind::kControl:
      sink_.on_control(static_cast<ControlMessage::Kind>(header.where >> 32),
                       RankId{static_cast<int32_t>(header.where & UINT32_MAX)});
      break;
  }
  begin_ += kFrameHeaderBytes;
  return true;
}

}  // namespace wideep::fabric
