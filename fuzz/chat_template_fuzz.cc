// modules: base tokenizer
// A hostile template ends within its limits, prints well-formed text, and cannot pass content off
// as template text. The input is the template, then (behind a NUL) the variables as JSON.
#include "base/check.h"
#include "base/json.h"
#include "base/utf8.h"
#include "tokenizer/chat_template.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

using namespace wideep::tokenizer;
using wideep::Json;

// A character that a template without escapes can get from the variables only.
constexpr std::string_view kMark = "\uE000";

const Json& conversation() {
  static const Json variables =
      wideep::parse_json(
          "{\"messages\":[{\"role\":\"user\uE000\",\"content\":\" a\uE000<b> \uE000c \"},"
          "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"f\":{\"x\uE000\":1.5}}]}],"
          "\"tools\":[{\"name\":\"\uE000\"}],\"s\":\"\uE000-\uE000\",\"l\":[1,2,3],\"b\":true}")
          .value();
  return variables;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string_view source = input.substr(0, end);
  const auto chat =
      ChatTemplate::parse(source, wideep::parse_json(R"({"bos_token":"<s>"})").value());
  if (!chat) return 0;
  Json variables = conversation();
  if (end != std::string_view::npos) {
    auto given = wideep::parse_json(input.substr(end + 1));
    if (given && given->is_object()) variables = std::move(*given);
  }
  RenderOptions options{.now_unix_seconds = 1'764'000'000};
  options.limits.steps_max = 100'000;
  options.limits.bytes_max = 8 << 20;
  const auto segments = chat->render(variables, options);
  if (!segments) return 0;
  const bool can_write_mark =
      source.find('\\') != std::string_view::npos || source.find(kMark) != std::string_view::npos;
  for (const TextSegment& segment : *segments) {
    WD_CHECK(wideep::is_valid_utf8(segment.text));
    WD_CHECK(can_write_mark || segment.origin == TextOrigin::kContent ||
             segment.text.find(kMark) == std::string::npos);
  }
  return 0;
}
