#include "fabric/talk.h"

#include "fabric/membership.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace wideep::fabric {
namespace {

constexpr std::chrono::seconds kSayPatience{3};

Status check_length(uint32_t length) {
  if (length <= kMeetingBytesMax) return {};
  return invalid_argument("meeting: message of {} bytes, at most {}", length, kMeetingBytesMax);
}

}  // namespace

Result<std::string> read_message(Stream& stream, const WaitLimit& limit) {
  uint32_t length = 0;
  WD_TRY(read_all(stream, std::as_writable_bytes(std::span(&length, 1)), limit));
  WD_TRY(check_length(length));
  std::string text(length, '\0');
  WD_TRY(read_all(stream, std::as_writable_bytes(std::span(text)), limit));
  return text;
}

Status Talk::say(std::string_view text) {
  const auto length = static_cast<uint32_t>(text.size());
  std::string message(sizeof length, '\0');
  std::memcpy(message.data(), &length, sizeof length);
  message += text;
  return write_all(*stream_, std::as_bytes(std::span(message)), real_clock().now() + kSayPatience);
}

Result<std::vector<std::string>> Talk::hear() {
  const Status status = take_in();
  std::vector<std::string> texts;
  uint32_t length = 0;
  while (input_.size() >= sizeof length) {
    std::memcpy(&length, input_.data(), sizeof length);
    WD_TRY(check_length(length));
    if (input_.size() < sizeof length + length) break;
    if (length > 0) texts.push_back(input_.substr(sizeof length, length));
    input_.erase(0, sizeof length + length);
  }
  // What was said before the connection ended counts; that it has ended shows again.
  if (!status && texts.empty()) return std::unexpected(status.error());
  return texts;
}

Status Talk::take_in() {
  std::array<char, 4096> bytes;
  while (std::ssize(input_) <= kMeetingBytesMax + std::ssize(bytes)) {
    WD_ASSIGN_OR_RETURN(const size_t count,
                        stream_->read(std::as_writable_bytes(std::span(bytes))));
    if (count == 0) break;
    heard_ = real_clock().now();
    has_heard_ = true;
    input_.append(bytes.data(), count);
  }
  return {};
}

}  // namespace wideep::fabric
