#include "tokenizer/post_processor.h"

#include <string>

namespace wideep::tokenizer {
namespace {

constexpr int kDepthMax = 4;
constexpr size_t kTemplateTokensMax = 64;

// The ids that a template's {"SpecialToken":{"id":"<s>"}} stands for.
Result<std::vector<TokenId>> ids_of(const Json& special, const Json& json, int32_t vocab_size) {
  const Json* name = special.find("id");
  const Json* table = json.find("special_tokens");
  if (name == nullptr || !name->is_string() || table == nullptr) {
    return invalid_argument("post_processor: SpecialToken without id or table");
  }
  const Json* entry = table->find(*name->as_string());
  const Json* ids = entry == nullptr ? nullptr : entry->find("ids");
  if (ids == nullptr || !ids->is_array()) {
    return invalid_argument("post_processor: special_tokens lacks '{}'",
                            name->as_string()->substr(0, 100));
  }
  std::vector<TokenId> result;
  for (const Json& id : *ids->as_array()) {
    const std::optional<int64_t> number = id.as_int();
    if (!number || *number < 0 || *number >= vocab_size) {
      return invalid_argument("post_processor: id {} is not in the vocabulary",
                              id.dump().substr(0, 100));
    }
    result.push_back(TokenId{static_cast<int32_t>(*number)});
  }
  return result;
}

Status read_template(const Json& json, int32_t vocab_size, PostProcessor& out) {
  const Json* single = json.find("single");
  if (single == nullptr || !single->is_array()) {
    return invalid_argument("post_processor: TemplateProcessing without single");
  }
  out = PostProcessor{.has_template = true};
  bool after_text = false;
  for (const Json& part : *single->as_array()) {
    if (part.find("Sequence") != nullptr) {
      if (after_text) return invalid_argument("post_processor: the text stands twice in single");
      after_text = true;
      continue;
    }
    const Json* special = part.find("SpecialToken");
    if (special == nullptr) {
      return invalid_argument("post_processor: single has neither Sequence nor SpecialToken");
    }
    WD_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, ids_of(*special, json, vocab_size));
    std::vector<TokenId>& side = after_text ? out.suffix : out.prefix;
    side.insert(side.end(), ids.begin(), ids.end());
    if (side.size() > kTemplateTokensMax) {
      return invalid_argument("post_processor: more than {} tokens", kTemplateTokensMax);
    }
  }
  return {};
}

Status read(const Json& json, int depth, int32_t vocab_size, PostProcessor& out) {
  const Json* type = json.find("type");
  const std::string* kind = type == nullptr ? nullptr : type->as_string();
  if (kind == nullptr) return invalid_argument("post_processor: no type");
  if (*kind == "ByteLevel") return {};
  if (*kind == "TemplateProcessing") return read_template(json, vocab_size, out);
  if (*kind != "Sequence") {
    return invalid_argument("post_processor: type '{}' is not supported", *kind);
  }
  const Json* list = json.find("processors");
  if (list == nullptr || !list->is_array() || depth >= kDepthMax) {
    return invalid_argument("post_processor: Sequence without a list, or nested too deep");
  }
  for (const Json& part : *list->as_array())
    WD_TRY(read(part, depth + 1, vocab_size, out));
  return {};
}

}  // namespace

Result<PostProcessor> read_post_processor(const Json* json, int32_t vocab_size) {
  PostProcessor result;
  if (json != nullptr && !json->is_null()) WD_TRY(read(*json, 0, vocab_size, result));
  return result;
}

}  // namespace wideep::tokenizer
