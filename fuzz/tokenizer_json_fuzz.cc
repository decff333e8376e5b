// modules: base tokenizer
// A hostile tokenizer.json must be refused or give a tokenizer that keeps its promises. The input's
// members replace those of a small valid file, so that short inputs reach every stage.
#include "base/check.h"
#include "base/json.h"
#include "base/utf8.h"
#include "tokenizer/small_tokenizer_test.h"
#include "tokenizer/tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace {

using wideep::Json;
using wideep::TokenId;
using wideep::tokenizer::Tokenizer;

const Json& valid_file() {
  using namespace wideep::tokenizer;
  static const Json file = small_tokenizer(small_model({{"h", "e"}, {"l", "l"}, {"he", "ll"}}),
                                           {added_token(300, "<|end|>", true)});
  return file;
}

void use(const Tokenizer& tokenizer) {
  constexpr std::string_view kText = "hello <|end|> <think>[x] 12 e\xCC\x81 \xE4\xB8\xAD\xFF\n ";
  for (const bool trusted : {false, true}) {
    const auto ids =
        tokenizer.encode(kText, {.add_special_tokens = trusted, .parse_special = trusted});
    if (!ids) continue;
    for (const TokenId id : *ids) {
      WD_CHECK(index(id) >= 0 && index(id) < tokenizer.vocab_size());
      WD_CHECK(trusted || !tokenizer.is_control(id));
    }
    WD_CHECK(wideep::is_valid_utf8(tokenizer.decode(*ids)));
  }
}

void load(const Json& file, const Json& config) {
  wideep::tokenizer::TokenizerLimits limits;
  limits.bpe.token_id_max = 10'000;
  limits.added_tokens.token_id_max = 10'000;
  if (const auto tokenizer = Tokenizer::from_json(file, config, limits)) use(**tokenizer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = wideep::parse_json({reinterpret_cast<const char*>(data), size});
  if (!parsed || !parsed->is_object()) return 0;
  const Json* config = parsed->find("config");
  load(*parsed, config == nullptr ? Json() : *config);
  Json file = valid_file();
  for (const auto& [key, value] : *parsed->as_object()) {
    Json* model = file.find("model");
    const bool of_model = key == "merges" || key == "ignore_merges" || key == "type";
    (of_model ? *model : file).set(key, value);
  }
  load(file, config == nullptr ? Json() : *config);
  return 0;
}
