#include "tokenizer/template_text.h"

#include <utility>

namespace wideep::tokenizer {
namespace {

constexpr char kContentMark = '\1';

char mark_of(TextOrigin origin) {
  return origin == TextOrigin::kContent ? kContentMark : '\0';
}

TextOrigin origin_of(char mark) {
  return mark == kContentMark ? TextOrigin::kContent : TextOrigin::kTemplate;
}

}  // namespace

Text::Text(std::string bytes, TextOrigin origin)
    : bytes_(std::move(bytes)), marks_(bytes_.size(), mark_of(origin)) {}

Text Text::substr(size_t begin, size_t count) const {
  Text part;
  part.bytes_ = bytes_.substr(begin, count);
  part.marks_ = marks_.substr(begin, count);
  return part;
}

void Text::append(const Text& other) {
  bytes_ += other.bytes_;
  marks_ += other.marks_;
}

void Text::append(std::string_view bytes, TextOrigin origin) {
  bytes_ += bytes;
  marks_.append(bytes.size(), mark_of(origin));
}

TextOrigin Text::origin_at(size_t i) const {
  return i < marks_.size() ? origin_of(marks_[i]) : TextOrigin::kTemplate;
}

TextOrigin Text::origin() const {
  return marks_.find(kContentMark) == std::string::npos ? TextOrigin::kTemplate
                                                        : TextOrigin::kContent;
}

std::vector<TextSegment> Text::segments() const {
  std::vector<TextSegment> out;
  for (size_t begin = 0; begin < bytes_.size();) {
    size_t end = marks_.find_first_not_of(marks_[begin], begin);
    if (end == std::string::npos) end = bytes_.size();
    out.push_back({bytes_.substr(begin, end - begin), origin_of(marks_[begin])});
    begin = end;
  }
  return out;
}

}  // namespace wideep::tokenizer
