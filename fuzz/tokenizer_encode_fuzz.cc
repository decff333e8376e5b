// modules: base tokenizer
// Any bytes, in segments of any origin, encode to tokens that decode to the same text; control
// tokens come from template text only. The first byte chooses the pre-tokenizer; later bytes 0 and
// 1 begin a segment of template text or of content.
#include "base/check.h"
#include "base/utf8.h"
#include "tokenizer/scanner.h"
#include "tokenizer/small_tokenizer_test.h"
#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace wideep::tokenizer;
using wideep::Json;
using wideep::TokenId;

std::unique_ptr<Tokenizer> make(std::string_view pattern) {
  Json file = small_tokenizer(
      small_model({{"a", "a"}, {"aa", "aa"}, {"'", "s"}, {" ", "a"}, {"\xE4", "\xB8"}, {"1", "2"}}),
      {added_token(300, "<|end|>", true), added_token(301, "<think>", false),
       added_token(302, "  ", false)});
  Json step = parsed(R"({"type":"Split","behavior":"Isolated","invert":false})");
  step.set("pattern", Json::Object{{"Regex", Json(pattern)}});
  Json sequence = parsed(R"({"type":"Sequence","pretokenizers":[]})");
  sequence.find("pretokenizers")->append(step);
  sequence.find("pretokenizers")
      ->append(parsed(R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})"));
  file.set("pre_tokenizer", sequence);
  auto result = Tokenizer::from_json(file, {});
  WD_CHECK(result.has_value());
  return std::move(*result);
}

const std::vector<std::unique_ptr<Tokenizer>>& tokenizers() {
  static const auto all = [] {
    std::vector<std::unique_ptr<Tokenizer>> made;
    for (const KnownPattern& known : known_patterns())
      made.push_back(make(known.pattern));
    return made;
  }();
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Tokenizer& tokenizer = *tokenizers()[data[0] % tokenizers().size()];
  std::vector<TextSegment> segments(1);
  for (size_t i = 1; i < size; ++i) {
    if (data[i] > 1) {
      segments.back().text += static_cast<char>(data[i]);
    } else {
      segments.push_back({"", data[i] == 0 ? TextOrigin::kTemplate : TextOrigin::kContent});
    }
  }
  std::string text;
  bool trusted = false;
  for (const TextSegment& segment : segments) {
    text += wideep::sanitize_utf8(segment.text);
    trusted = trusted || segment.origin == TextOrigin::kTemplate;
  }
  const auto ids = tokenizer.encode_chat(segments);
  WD_CHECK(ids.has_value());
  WD_CHECK(tokenizer.decode(*ids) == text);
  const auto is_control = [&](TokenId id) { return tokenizer.is_control(id); };
  WD_CHECK(trusted || std::ranges::none_of(*ids, is_control));
  const auto plain = tokenizer.encode(text);
  WD_CHECK(plain.has_value() && std::ranges::none_of(*plain, is_control));
  return 0;
}
