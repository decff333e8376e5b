// A piece of a prompt and where it came from. The seam between chat templates, which make segments,
// and the tokenizer, which lets control tokens arise only from template text.
#pragma once

#include <string>
#include <vector>

namespace wideep::tokenizer {

enum class TextOrigin {
  kTemplate,  // written by whoever made the model: control tokens are meant
  kContent,   // came in with a request: whatever it looks like, it is plain text
};

struct TextSegment {
  std::string text;
  TextOrigin origin = TextOrigin::kContent;

  bool operator==(const TextSegment&) const = default;
};

}  // namespace wideep::tokenizer
