// The "post_processor" of tokenizer.json: which tokens stand before and after a text that is
// encoded with add_special_tokens. Known: ByteLevel (adds none), TemplateProcessing, Sequence of
// those.
#pragma once

#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"

#include <vector>

namespace wideep::tokenizer {

struct PostProcessor {
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
  bool has_template = false;
};

// `json` may be null: no tokens. Ids must be below `vocab_size`.
Result<PostProcessor> read_post_processor(const Json* json, int32_t vocab_size);

}  // namespace wideep::tokenizer
