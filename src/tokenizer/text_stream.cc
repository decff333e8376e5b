#include "tokenizer/text_stream.h"

#include "base/utf8.h"

#include <algorithm>
#include <utility>

namespace wideep::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// The longest border (a proper prefix that is also a suffix) of each prefix of `text`.
std::vector<size_t> borders(std::string_view text) {
  std::vector<size_t> result(text.size() + 1, 0);
  for (size_t i = 1, border = 0; i < text.size(); ++i) {
    while (border > 0 && text[i] != text[border])
      border = result[border];
    if (text[i] == text[border]) ++border;
    result[i + 1] = border;
  }
  return result;
}

// Bytes of the maximal ill-formed part that `bytes` begins with; `bytes` begins with no character.
size_t ill_formed_bytes(std::string_view bytes) {
  size_t length = 1;
  while (length < bytes.size() && is_utf8_prefix(bytes.substr(0, length + 1)))
    ++length;
  return length;
}

}  // namespace

Result<StopMatcher> StopMatcher::create(std::vector<std::string> stops) {
  if (stops.size() > StopOptions::kStopsMax) {
    return invalid_argument("{} stop strings, at most {} allowed", stops.size(),
                            StopOptions::kStopsMax);
  }
  StopMatcher matcher;
  for (std::string& stop : stops) {
    if (stop.empty() || stop.size() > StopOptions::kStopBytesMax) {
      return invalid_argument("stop string {} has {} bytes, allowed are 1 to {}",
                              matcher.patterns_.size(), stop.size(), StopOptions::kStopBytesMax);
    }
    if (!is_valid_utf8(stop)) {
      return invalid_argument("stop string {} is not valid UTF-8", matcher.patterns_.size());
    }
    std::vector<size_t> fallback = borders(stop);
    matcher.patterns_.push_back({std::move(stop), std::move(fallback)});
  }
  return matcher;
}

std::optional<size_t> StopMatcher::feed(char byte) {
  std::optional<size_t> longest;
  for (size_t i = 0; i < patterns_.size(); ++i) {
    Pattern& pattern = patterns_[i];
    size_t& matched = pattern.matched;
    while (matched == pattern.text.size() || (matched > 0 && pattern.text[matched] != byte)) {
      matched = pattern.fallback[matched];
    }
    if (pattern.text[matched] == byte) ++matched;
    if (matched < pattern.text.size()) continue;
    if (!longest || pattern.text.size() > patterns_[*longest].text.size()) longest = i;
  }
  return longest;
}

size_t StopMatcher::open_bytes() const {
  size_t open = 0;
  for (const Pattern& pattern : patterns_)
    open = std::max(open, pattern.matched);
  return open;
}

void StopMatcher::reset() {
  for (Pattern& pattern : patterns_)
    pattern.matched = 0;
}

TextStream::TextStream(StopMatcher matcher, bool include_stop)
    : matcher_(std::move(matcher)), include_stop_(include_stop) {}

Result<TextStream> TextStream::create(StopOptions options) {
  WD_ASSIGN_OR_RETURN(StopMatcher matcher, StopMatcher::create(std::move(options.stop)));
  return TextStream(std::move(matcher), options.include_stop);
}

std::string TextStream::push(std::string_view bytes, Stops stops) {
  if (stopped_) return {};
  stops_ = stops;
  decode(bytes);
  if (stopped_) return std::exchange(held_, {});
  std::string shown = std::move(held_);
  const size_t held = std::min(matcher_.open_bytes(), shown.size());
  held_ = shown.substr(shown.size() - held);
  shown.resize(shown.size() - held);
  return shown;
}

std::string TextStream::finish() {
  if (stopped_) return {};
  if (!unfinished_.empty()) {
    unfinished_.clear();
    append(kReplacement);
  }
  matcher_.reset();
  return std::exchange(held_, {});
}

// Appends the characters that are complete, and U+FFFD for what can no longer become one.
void TextStream::decode(std::string_view bytes) {
  const std::string joined = std::exchange(unfinished_, {}) + std::string(bytes);
  std::string_view rest = joined;
  while (!rest.empty() && !stopped_) {
    const int length = utf8_sequence_length(rest);
    if (length > 0) {
      append(rest.substr(0, static_cast<size_t>(length)));
      rest.remove_prefix(static_cast<size_t>(length));
    } else if (is_utf8_prefix(rest)) {
      unfinished_ = rest;
      return;
    } else {
      append(kReplacement);
      rest.remove_prefix(ill_formed_bytes(rest));
    }
  }
}

// Adds one character to the held text and cuts it where a stop string has become complete.
void TextStream::append(std::string_view character) {
  held_ += character;
  if (stops_ == Stops::kIgnore) {
    matcher_.reset();
    return;
  }
  for (const char byte : character) {
    const std::optional<size_t> found = matcher_.feed(byte);
    if (!found) continue;
    // A stop string is well formed, so it ends where the character ends.
    stopped_ = Match{*found, std::string(matcher_.stop(*found))};
    if (!include_stop_) held_.resize(held_.size() - stopped_->text.size());
    return;
  }
}

bool TextStream::operator==(const TextStream& other) const {
  return matcher_ == other.matcher_ && include_stop_ == other.include_stop_ &&
         unfinished_ == other.unfinished_ && held_ == other.held_ &&
         stopped_.has_value() == other.stopped_.has_value();
}

}  // namespace wideep::tokenizer
