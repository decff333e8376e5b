// A string of a template that remembers which of its bytes came in with the request.
//
// The mark of each byte travels with it through every operation (slices, split, replace, +), so
// that a template may do what it likes with a message and the tokenizer still knows what is
// content.
#pragma once

#include "tokenizer/text_segment.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

class Text {
 public:
  Text() = default;
  Text(std::string bytes, TextOrigin origin);

  std::string_view bytes() const { return bytes_; }

  size_t size() const { return bytes_.size(); }

  bool empty() const { return bytes_.empty(); }

  Text substr(size_t begin, size_t count = std::string::npos) const;
  void append(const Text& other);
  void append(std::string_view bytes, TextOrigin origin);
  // The origin of a byte; kTemplate behind the end.
  TextOrigin origin_at(size_t i) const;
  // kContent if any byte is.
  TextOrigin origin() const;

  // Runs of equal origin.
  std::vector<TextSegment> segments() const;

 private:
  std::string bytes_;
  std::string marks_;  // as long as bytes_: '\1' for content
};

}  // namespace wideep::tokenizer
