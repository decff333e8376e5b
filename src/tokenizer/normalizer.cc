#include "tokenizer/normalizer.h"

namespace wideep::tokenizer {
namespace {

constexpr int kDepthMax = 4;

Result<Normalizer> read(const Json& json, int depth) {
  const Json* type = json.find("type");
  const std::string* kind = type == nullptr ? nullptr : type->as_string();
  if (kind == nullptr) return invalid_argument("normalizer: no type");
  if (*kind == "NFC") return Normalizer::kNfc;
  if (*kind != "Sequence") return invalid_argument("normalizer: type '{}' is not supported", *kind);
  const Json* list = json.find("normalizers");
  if (list == nullptr || !list->is_array() || depth >= kDepthMax) {
    return invalid_argument("normalizer: Sequence without a list, or nested too deep");
  }
  Normalizer result = Normalizer::kNone;
  for (const Json& part : *list->as_array()) {
    WD_ASSIGN_OR_RETURN(const Normalizer one, read(part, depth + 1));
    if (one == Normalizer::kNfc) result = one;
  }
  return result;
}

}  // namespace

Result<Normalizer> read_normalizer(const Json* json) {
  if (json == nullptr || json->is_null()) return Normalizer::kNone;
  return read(*json, 0);
}

}  // namespace wideep::tokenizer
