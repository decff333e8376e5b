#include "tokenizer/number_tokenizer.h"

#include "base/json.h"
#include "base/utf8.h"
#include "tokenizer/vocabulary.h"

#include <fmt/format.h>

#include <optional>
#include <string>

namespace wideep::tokenizer {
namespace {

Json number_tokens(int64_t vocab_size) {
  Json tokens{Json::Array{}};
  for (int64_t id = 0; id < vocab_size; ++id) {
    Json token;
    token.set("id", id);
    token.set("content", fmt::format(" {}", id));
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"})
      token.set(flag, false);
    tokens.append(std::move(token));
  }
  return tokens;
}

// All bytes, with ids from `first` on.
Json byte_vocabulary(int64_t first) {
  Json vocabulary{Json::Object{}};
  for (char32_t character = 0; character < kAlphabetEnd; ++character) {
    const std::optional<char> byte = byte_of_alphabet(character);
    if (!byte) continue;
    std::string key;
    append_utf8(key, character);
    vocabulary.set(key, first + static_cast<uint8_t>(*byte));
  }
  return vocabulary;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> number_tokenizer(int64_t vocab_size) {
  Json bpe;
  bpe.set("type", "BPE");
  bpe.set("vocab", byte_vocabulary(vocab_size));
  bpe.set("merges", Json(Json::Array{}));
  Json byte_level;
  byte_level.set("type", "ByteLevel");
  byte_level.set("add_prefix_space", false);
  Json document;
  document.set("added_tokens", number_tokens(vocab_size));
  document.set("pre_tokenizer", byte_level);
  document.set("decoder", byte_level);
  document.set("model", std::move(bpe));
  return Tokenizer::from_json(document, {});
}

}  // namespace wideep::tokenizer
