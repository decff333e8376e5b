// Runs our tokenizer and templates for the oracle scripts beside this file: frames on standard
// input, frames on standard output, in order.
//
// A frame is its length (u32, little endian) and that many bytes.
//   tokenizer_driver encode MODEL_DIR   in: flags (1 add_special, 2 parse_special), text; out: u32
//   ids tokenizer_driver decode MODEL_DIR   in: flags (1 skip_special), u32 ids; out: text
//   tokenizer_driver time MODEL_DIR     in: text; out: JSON with MB per CPU second over repeats
//   tokenizer_driver render             in: JSON {template, trusted, variables, now};
//                                       out: JSON [[is_content, text], ...] or {"error": message}
//   tokenizer_driver chat MODEL_DIR     in: JSON of variables; out: u32 ids of the rendered prompt
#include "base/check.h"
#include "base/json.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

using wideep::Json;
using wideep::Result;
using wideep::TokenId;
using wideep::tokenizer::ChatTemplate;
using wideep::tokenizer::TextOrigin;
using wideep::tokenizer::TextSegment;
using wideep::tokenizer::Tokenizer;

std::optional<std::string> read_frame() {
  uint32_t size = 0;
  if (std::fread(&size, sizeof(size), 1, stdin) != 1) return std::nullopt;
  std::string frame(size, '\0');
  if (std::fread(frame.data(), 1, size, stdin) != size) return std::nullopt;
  return frame;
}

void write_frame(std::string_view frame) {
  const auto size = static_cast<uint32_t>(frame.size());
  std::fwrite(&size, sizeof(size), 1, stdout);
  std::fwrite(frame.data(), 1, frame.size(), stdout);
}

std::string encode(const Tokenizer& tokenizer, std::string_view frame) {
  const auto flags = static_cast<unsigned char>(frame.at(0));
  const auto ids = tokenizer.encode(
      frame.substr(1), {.add_special_tokens = (flags & 1) != 0, .parse_special = (flags & 2) != 0});
  if (!ids) return "error: " + ids.error().message;
  return {reinterpret_cast<const char*>(ids->data()), ids->size() * sizeof(TokenId)};
}

std::string decode(const Tokenizer& tokenizer, std::string_view frame) {
  const auto flags = static_cast<unsigned char>(frame.at(0));
  std::vector<TokenId> ids((frame.size() - 1) / sizeof(TokenId));
  std::memcpy(ids.data(), frame.data() + 1, ids.size() * sizeof(TokenId));
  return tokenizer.decode(ids, {.skip_special = (flags & 1) != 0});
}

std::string time_encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<double> seconds;
  size_t num_tokens = 0;
  for (int i = 0; i < 7; ++i) {
    const std::clock_t start = std::clock();
    const auto ids = tokenizer.encode(text);
    seconds.push_back(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    WD_CHECK(ids.has_value());
    num_tokens = ids->size();
  }
  std::sort(seconds.begin(), seconds.end());
  return fmt::format(R"({{"bytes":{},"tokens":{},"mb_per_s_median":{:.1f},"mb_per_s_max":{:.1f}}})",
                     text.size(), num_tokens,
                     static_cast<double>(text.size()) / 1e6 / seconds[seconds.size() / 2],
                     static_cast<double>(text.size()) / 1e6 / seconds.front());
}

Result<std::vector<TextSegment>> rendered(std::string_view frame) {
  WD_ASSIGN_OR_RETURN(const Json request, wideep::parse_json(frame));
  const Json* source = request.find("template");
  const Json* trusted = request.find("trusted");
  const Json* variables = request.find("variables");
  const Json* now = request.find("now");
  WD_CHECK(source != nullptr && trusted != nullptr && variables != nullptr && now != nullptr);
  WD_ASSIGN_OR_RETURN(const ChatTemplate chat_template,
                      ChatTemplate::parse(*source->as_string(), *trusted));
  return chat_template.render(*variables, {.now_unix_seconds = *now->as_int()});
}

std::string render(std::string_view frame) {
  const auto segments = rendered(frame);
  Json answer;
  if (!segments) {
    answer.set("error", segments.error().message);
    return answer.dump();
  }
  answer = Json::Array{};
  for (const TextSegment& segment : *segments) {
    Json pair{Json::Array{}};
    pair.append(segment.origin == TextOrigin::kContent);
    pair.append(segment.text);
    answer.append(pair);
  }
  return answer.dump();
}

std::string chat(const Tokenizer& tokenizer,
                 const ChatTemplate& chat_template,
                 std::string_view frame) {
  const auto variables = wideep::parse_json(frame);
  WD_CHECK(variables.has_value());
  const auto segments = chat_template.render(*variables);
  if (!segments) return "error: " + segments.error().message;
  const auto ids = tokenizer.encode_chat(*segments);
  if (!ids) return "error: " + ids.error().message;
  return {reinterpret_cast<const char*>(ids->data()), ids->size() * sizeof(TokenId)};
}

template <typename Answer>
int answer_frames(Answer answer) {
  while (const auto frame = read_frame()) {
    write_frame(answer(*frame));
    std::fflush(stdout);
  }
  return 0;
}

int fail(const std::string& message) {
  std::fputs((message + "\n").c_str(), stderr);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view job = argc > 1 ? argv[1] : "";
  if (job == "render") return answer_frames(render);
  if (argc != 3)
    return fail("usage: tokenizer_driver encode|decode|time|chat MODEL_DIR, or render");
  const auto tokenizer = Tokenizer::load(argv[2]);
  if (!tokenizer) return fail(tokenizer.error().message);
  if (job == "chat") {
    const auto chat_template = ChatTemplate::load(argv[2]);
    if (!chat_template) return fail(chat_template.error().message);
    return answer_frames(
        [&](std::string_view frame) { return chat(**tokenizer, *chat_template, frame); });
  }
  const auto run = job == "encode" ? encode : job == "decode" ? decode : time_encode;
  return answer_frames([&](std::string_view frame) { return run(**tokenizer, frame); });
}
