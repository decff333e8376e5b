// From the bytes of tokens to the text that may be shown: whole UTF-8 characters only, and never a
// piece that could turn out to be the beginning of a stop string.
//
// Everything depends on the sequence of bytes alone, not on how it was cut into tokens or calls:
// feeding the same tokens to another instance (a resumed request) gives the same text, state and
// stop. Held back are at most 3 bytes of an unfinished character and the longest end of the text
// that is a beginning of a stop string. Ill-formed bytes become U+FFFD as soon as a following byte
// proves them ill-formed, or at finish(). No I/O. Thread: one at a time.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

struct StopOptions {
  std::vector<std::string> stop;
  bool include_stop = false;  // the text ends behind the stop string instead of before it

  static constexpr size_t kStopsMax = 16;
  static constexpr size_t kStopBytesMax = 256;
};

// Finds the stop string that is complete first in a text that comes in pieces; of those that are
// complete at the same byte, the longest. One Knuth-Morris-Pratt automaton for each stop string.
class StopMatcher {
 public:
  // kInvalidArgument for an empty or ill-formed stop string, or beyond the limits of StopOptions.
  static Result<StopMatcher> create(std::vector<std::string> stops);

  // Feeds one byte. The index of the stop string that ends with it, if any does.
  std::optional<size_t> feed(char byte);
  // How many of the last bytes could be the beginning of a stop string.
  size_t open_bytes() const;
  // Forgets the bytes fed so far.
  void reset();

  std::string_view stop(size_t i) const { return patterns_[i].text; }

  bool operator==(const StopMatcher&) const = default;

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> fallback;  // of each prefix: its longest border
    size_t matched = 0;            // how many of its bytes the text ends with

    bool operator==(const Pattern&) const = default;
  };

  std::vector<Pattern> patterns_;
};

class TextStream {
 public:
  static Result<TextStream> create(StopOptions options = {});

  enum class Stops {
    kWatch,   // look for stop strings
    kIgnore,  // show everything; none may begin in this part (min_tokens not reached)
  };

  // Takes a token's bytes; returns the text that may be shown now. After a stop: nothing more.
  std::string push(std::string_view bytes, Stops stops = Stops::kWatch);
  // The generation has ended: returns what was held back.
  std::string finish();

  struct Match {
    size_t index;  // into StopOptions::stop
    std::string text;
  };

  // The stop string that ended the text.
  const std::optional<Match>& stopped() const { return stopped_; }

  // Same state: the same bytes from here on give the same text.
  bool operator==(const TextStream& other) const;

 private:
  TextStream(StopMatcher matcher, bool include_stop);

  void decode(std::string_view bytes);
  void append(std::string_view characters);

  StopMatcher matcher_;
  bool include_stop_;
  Stops stops_ = Stops::kWatch;
  std::string unfinished_;  // at most 3 bytes, the beginning of a character
  std::string held_;        // characters not shown yet
  std::optional<Match> stopped_;
};

}  // namespace wideep::tokenizer
