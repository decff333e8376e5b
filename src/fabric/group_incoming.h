// The receiving end of a link, on the control thread of the rank that is its door.
#pragma once

#include "fabric/frame.h"
#include "fabric/group_fabric.h"

#include <memory>

namespace wideep::fabric {

class GroupFabric::Incoming final : public FrameSink {
 public:
  Incoming(GroupFabric& fabric, SourceLink link)
      : fabric_(fabric),
        source_(link.source),
        stream_(std::move(link.stream)),
        reader_(fabric.shape_, *this) {}

  RankId source() const { return source_; }

  int fd() const { return stream_->fd(); }

  // Takes in what has come. An error: it has ended, or sent what it must not.
  Status read();
  // It has ended: read() no more.
  bool has_ended = false;

  Result<std::span<std::byte>> place(RankId to, int64_t offset, int64_t bytes) override;
  Status on_signal(RankId to, ChannelId channel, const Signal& signal) override;
  void on_beat() override;
  void on_control(ControlMessage::Kind kind, RankId about) override;

 private:
  Result<const Arena*> arena_of(RankId to) const;
  void set_wake_bytes(int bytes);

  GroupFabric& fabric_;
  const RankId source_;
  std::unique_ptr<Stream> stream_;
  FrameReader reader_;
  int wake_bytes_ = 1;
};

}  // namespace wideep::fabric
