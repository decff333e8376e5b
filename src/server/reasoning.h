// Parts a model's text into reasoning and answer at its <think> tags, as the text comes.
#pragma once

#include <string>
#include <string_view>

namespace wideep::server {

struct SplitText {
  std::string reasoning;
  std::string content;
};

// Text may be cut anywhere, inside the tags too: what could be the beginning of a tag is held back
// until it is one or is not. Line ends next to a tag belong to the tag. After </think> everything
// is content, also more tags. Thread: one at a time.
class ThinkSplitter {
 public:
  enum class Start {
    kContent,    // no reasoning comes: everything is content
    kReasoning,  // the prompt has opened the tag
    kUnknown,    // reasoning if the text begins with <think>, else content
  };
  explicit ThinkSplitter(Start start);

  // How a prompt that ends so makes the text begin: "...<think>\n" opens reasoning, "</think>"
  // (thinking switched off) ends it.
  static Start start_after(std::string_view prompt_end);

  SplitText push(std::string_view text);
  // The text has ended: what was held back.
  SplitText finish();

  bool in_reasoning() const { return state_ == State::kReasoning; }

 private:
  enum class State { kUndecided, kReasoning, kContent };
  void advance(SplitText& out);

  State state_;
  std::string held_;
  std::string line_ends_;        // in reasoning: they may stand before the closing tag
  bool drop_line_ends_ = false;  // just after a tag
};

}  // namespace wideep::server
