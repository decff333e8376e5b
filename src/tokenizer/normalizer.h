// The "normalizer" of tokenizer.json: nothing, NFC, or a Sequence of those. Others are refused.
#pragma once

#include "base/json.h"
#include "base/result.h"

namespace wideep::tokenizer {

enum class Normalizer { kNone, kNfc };

Result<Normalizer> read_normalizer(const Json* json);

}  // namespace wideep::tokenizer
