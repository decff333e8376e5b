#include "server/reasoning.h"

#include <algorithm>
#include <utility>

namespace wideep::server {
namespace {

constexpr std::string_view kOpen = "<think>";
constexpr std::string_view kClose = "</think>";

// The length of the longest end of `text` that is a beginning of `tag`, but not all of it.
size_t open_bytes(std::string_view text, std::string_view tag) {
  for (size_t length = std::min(text.size(), tag.size() - 1); length > 0; --length) {
    if (text.ends_with(tag.substr(0, length))) return length;
  }
  return 0;
}

std::string_view without_line_ends(std::string_view text) {
  while (text.starts_with('\n'))
    text.remove_prefix(1);
  return text;
}

}  // namespace

ThinkSplitter::ThinkSplitter(Start start)
    : state_(start == Start::kReasoning ? State::kReasoning
             : start == Start::kContent ? State::kContent
                                        : State::kUndecided),
      drop_line_ends_(start == Start::kReasoning) {}

ThinkSplitter::Start ThinkSplitter::start_after(std::string_view prompt_end) {
  while (!prompt_end.empty() && (prompt_end.back() == '\n' || prompt_end.back() == ' '))
    prompt_end.remove_suffix(1);
  if (prompt_end.ends_with(kClose)) return Start::kContent;
  if (prompt_end.ends_with(kOpen)) return Start::kReasoning;
  return Start::kUnknown;
}

SplitText ThinkSplitter::push(std::string_view text) {
  held_ += text;
  SplitText out;
  advance(out);
  return out;
}

SplitText ThinkSplitter::finish() {
  SplitText out;
  if (state_ == State::kReasoning) {
    out.reasoning = line_ends_ + held_;
  } else {
    out.content = held_;
  }
  held_.clear();
  line_ends_.clear();
  return out;
}

void ThinkSplitter::advance(SplitText& out) {
  if (state_ == State::kUndecided) {
    const std::string_view begin = without_line_ends(held_);
    if (begin.starts_with(kOpen)) {
      held_ = std::string(begin.substr(kOpen.size()));
      state_ = State::kReasoning;
      drop_line_ends_ = true;
    } else if (kOpen.starts_with(begin)) {
      return;
    } else {
      state_ = State::kContent;
    }
  }
  if (drop_line_ends_) {
    held_ = std::string(without_line_ends(held_));
    if (held_.empty()) return;
    drop_line_ends_ = false;
  }
  if (state_ == State::kContent) {
    out.content += std::exchange(held_, {});
    return;
  }
  held_.insert(0, std::exchange(line_ends_, {}));
  const size_t close = held_.find(kClose);
  std::string rest;
  if (close != std::string::npos) {
    rest = held_.substr(close + kClose.size());
    held_.resize(close);
  } else {
    rest = held_.substr(held_.size() - open_bytes(held_, kClose));
    held_.resize(held_.size() - rest.size());
  }
  const size_t shown = held_.find_last_not_of('\n') + 1;
  out.reasoning.append(held_, 0, shown);
  if (close == std::string::npos) {
    line_ends_ = held_.substr(shown);
    held_ = std::move(rest);
    return;
  }
  held_ = std::move(rest);
  state_ = State::kContent;
  drop_line_ends_ = true;
  advance(out);
}

}  // namespace wideep::server
