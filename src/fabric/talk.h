// Messages over a stream, both ways: 4 bytes of length, then text. An empty one is a sign of life.
// Thread: one at a time.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/stream.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::fabric {

// The first message on a stream; nothing is read beyond it.
Result<std::string> read_message(Stream& stream, const WaitLimit& limit);

class Talk {
 public:
  explicit Talk(std::unique_ptr<Stream> stream)
      : stream_(std::move(stream)), heard_(real_clock().now()) {}

  int fd() const { return stream_->fd(); }

  // Blocks at most a moment: what is said is small.
  Status say(std::string_view text);
  // What has come since, without signs of life. kUnavailable: the connection has ended.
  Result<std::vector<std::string>> hear();

  bool has_heard() const { return has_heard_; }  // anything, ever

  Duration silence() const { return real_clock().now() - heard_; }

 private:
  Status take_in();

  std::unique_ptr<Stream> stream_;
  TimePoint heard_;
  bool has_heard_ = false;
  std::string input_;  // what has come of messages that are not whole
};

}  // namespace wideep::fabric
