// A tokenizer for models that come without one: every token shows as its number. Text becomes ids
// beyond the vocabulary, one a byte, which an engine refuses.
#pragma once

#include "base/result.h"
#include "tokenizer/tokenizer.h"

#include <cstdint>
#include <memory>

namespace wideep::tokenizer {

// Token i of [0, vocab_size) is " i"; byte b of a text is vocab_size + b.
Result<std::unique_ptr<Tokenizer>> number_tokenizer(int64_t vocab_size);

}  // namespace wideep::tokenizer
