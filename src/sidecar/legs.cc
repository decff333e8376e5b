#include "sidecar/legs.h"

#include <array>

namespace wideep::sidecar {
namespace {

constexpr std::string_view kParams = "kv_transfer_params";
constexpr std::array<std::string_view, 3> kTokenLimits = {"max_tokens", "max_completion_tokens",
                                                          "min_tokens"};

}  // namespace

Json prefill_body(const Json& request) {
  Json body = request;
  Json params;
  params.set("do_remote_decode", true);
  params.set("do_remote_prefill", false);
  for (const char* unknown_yet :
       {"remote_engine_id", "remote_block_ids", "remote_host", "remote_port"}) {
    params.set(unknown_yet, nullptr);
  }
  body.set(kParams, std::move(params));
  body.set("stream", false);
  body.erase("stream_options");
  for (const std::string_view limit : kTokenLimits)
    body.set(limit, 1);
  return body;
}

Json decode_body(const Json& request, const Json& kv_transfer_params) {
  Json body = request;
  if (!kv_transfer_params.is_null()) body.set(kParams, kv_transfer_params);
  return body;
}

bool has_several_prompts(const Json& request) {
  const Json* prompt = request.find("prompt");
  const Json::Array* items = prompt != nullptr ? prompt->as_array() : nullptr;
  // A list of numbers is one prompt, as token ids.
  return items != nullptr && items->size() > 1 && !items->front().is_number();
}

void strip_internal_fields(Json& request) {
  request.erase(kParams);
}

int64_t cached_tokens(const Json& answer) {
  const Json* usage = answer.find("usage");
  const Json* details = usage != nullptr ? usage->find("prompt_tokens_details") : nullptr;
  const Json* tokens = details != nullptr ? details->find("cached_tokens") : nullptr;
  return tokens != nullptr ? tokens->as_int().value_or(0) : 0;
}

bool set_cached_tokens(Json& answer, int64_t tokens) {
  Json* usage = answer.find("usage");
  if (usage == nullptr || !usage->is_object()) return false;
  Json* details = usage->find("prompt_tokens_details");
  if (details == nullptr || !details->is_object()) {
    usage->set("prompt_tokens_details", Json(Json::Object{}));
    details = usage->find("prompt_tokens_details");
  }
  details->set("cached_tokens", tokens);
  return true;
}

std::string UsageRewriter::feed(std::string_view bytes, bool end) {
  if (too_long_) return std::string(bytes);
  pending_ += bytes;
  if (is_event_stream_) return rewrite_events(end);
  if (pending_.size() > kBodyBytesMax) {
    too_long_ = true;
    return std::move(pending_);
  }
  if (!end) return {};
  auto answer = parse_json(pending_);
  return answer && set_cached_tokens(*answer, cached_tokens_) ? answer->dump()
                                                              : std::move(pending_);
}

std::string UsageRewriter::rewrite_events(bool end) {
  std::string out;
  size_t start = 0;
  for (size_t newline = pending_.find('\n'); newline != std::string::npos;
       newline = pending_.find('\n', start)) {
    out += rewrite_line(std::string_view(pending_).substr(start, newline - start)) + '\n';
    start = newline + 1;
  }
  pending_.erase(0, start);
  if (end) out += std::exchange(pending_, {});
  return out;
}

std::string UsageRewriter::rewrite_line(std::string_view line) const {
  constexpr std::string_view kData = "data: ";
  if (line.starts_with(kData) && line.find("\"usage\"") != std::string_view::npos) {
    auto chunk = parse_json(line.substr(kData.size()));
    if (chunk && set_cached_tokens(*chunk, cached_tokens_))
      return std::string(kData) + chunk->dump();
  }
  return std::string(line);
}

}  // namespace wideep::sidecar
