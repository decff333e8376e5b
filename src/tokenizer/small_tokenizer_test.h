// A hand-made tokenizer for the tests: 256 byte tokens (ids 0 to 255, id = byte), some merges, and
// whatever a test adds.
#pragma once

#include "base/json.h"
#include "base/utf8.h"

#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

// A byte in the alphabet of tokenizer.json.
inline std::string spelled(unsigned char byte) {
  std::string out;
  int next = 0x100;
  for (int b = 0; b <= byte; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    if (b == byte) append_utf8(out, static_cast<char32_t>(itself ? b : next));
    if (!itself) ++next;
  }
  return out;
}

inline std::string spelled(std::string_view bytes) {
  std::string out;
  for (const char c : bytes)
    out += spelled(static_cast<unsigned char>(c));
  return out;
}

// "model" with the merges "l r" (raw bytes); results get ids from 256 on, in order.
inline Json small_model(const std::vector<std::pair<std::string, std::string>>& merges) {
  Json vocab{Json::Object{}};
  for (int byte = 0; byte < 256; ++byte)
    vocab.set(spelled(static_cast<unsigned char>(byte)), byte);
  Json list{Json::Array{}};
  int next = 256;
  for (const auto& [left, right] : merges) {
    const std::string result = spelled(left) + spelled(right);
    if (vocab.find(result) == nullptr) vocab.set(result, next++);
    list.append(spelled(left) + " " + spelled(right));
  }
  Json model{Json::Object{}};
  model.set("type", "BPE");
  model.set("vocab", vocab);
  model.set("merges", list);
  return model;
}

inline Json added_token(int id, std::string_view content, bool special) {
  Json token{Json::Object{}};
  token.set("id", id);
  token.set("content", content);
  token.set("special", special);
  token.set("normalized", false);
  return token;
}

inline Json parsed(std::string_view text) {
  return parse_json(text).value();
}

// The whole file. Pieces are cut by GPT-2's pattern.
inline Json small_tokenizer(const Json& model, const Json::Array& added_tokens = {}) {
  Json file{Json::Object{}};
  file.set("model", model);
  file.set("added_tokens", added_tokens);
  file.set("pre_tokenizer", parsed(R"({"type":"ByteLevel","add_prefix_space":false})"));
  return file;
}

}  // namespace wideep::tokenizer
