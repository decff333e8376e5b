#include "cmd/route_report.h"

#include "base/metrics_text.h"
#include "cmd/progress.h"
#include "net/address.h"

#include <fmt/format.h>

#include <algorithm>

namespace wideep::cmd {
namespace {

constexpr std::chrono::milliseconds kTimeout{2'000};
constexpr int kLooksMax = 50;  // until the decode rank has counted what it generated

std::string text_at(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  const std::string* text = value != nullptr ? value->as_string() : nullptr;
  return text != nullptr ? *text : "";
}

// "default/decode-0 10.0.0.7:8000" -> "decode-0".
std::string name_of_route(const std::string& route) {
  const std::string name = route.substr(0, route.find(' '));
  const size_t slash = name.find('/');
  return slash == std::string::npos ? name : name.substr(slash + 1);
}

std::string address_of_route(const std::string& route) {
  const size_t space = route.find(' ');
  return space == std::string::npos ? "" : route.substr(space + 1);
}

}  // namespace

Result<RouteReport> RouteReport::begin(http::Client& client,
                                       const ServerUrl& gateway,
                                       const std::string& api_key) {
  RouteReport report(client);
  WD_TRY(report.list_endpoints(gateway, api_key));
  for (Endpoint& endpoint : report.endpoints_) {
    WD_ASSIGN_OR_RETURN(endpoint.before, report.look(endpoint.address));
  }
  return report;
}

Result<std::string> RouteReport::get(http::Call call) const {
  const std::string what = call.address.to_string() + call.target;
  call.total_timeout = kTimeout;
  const auto response = client_->fetch(std::move(call));
  if (!response) return std::unexpected(response.error().error);
  if (response->status != 200)
    return error(ErrorCode::kUnavailable, "{}: HTTP {}", what, response->status);
  return response->body;
}

Status RouteReport::list_endpoints(const ServerUrl& gateway, const std::string& api_key) {
  http::Call call{.address = gateway.address, .target = gateway.target("/endpoints")};
  if (!api_key.empty()) call.headers.set("authorization", "Bearer " + api_key);
  auto body = get(std::move(call));
  if (!body) return with_context(body.error(), "--route needs a gateway with --expose-routes");
  WD_ASSIGN_OR_RETURN(const Json list, parse_json(*body));
  const Json* items = list.find("endpoints");
  if (items == nullptr || !items->is_array()) return invalid_argument("no list of endpoints");
  for (const Json& item : *items->as_array()) {
    Endpoint endpoint{.name = name_of_route(text_at(item, "name")), .role = text_at(item, "role")};
    WD_ASSIGN_OR_RETURN(endpoint.address, net::parse_address(text_at(item, "address")));
    endpoints_.push_back(std::move(endpoint));
  }
  return {};
}

Result<RouteReport::Look> RouteReport::look(const net::Address& address) const {
  WD_ASSIGN_OR_RETURN(const std::string text, get({.address = address, .target = "/metrics"}));
  Look look;
  for_each_sample(text, [&](const MetricSample& sample) {
    if (sample.name == "vllm:prompt_tokens_total") look.prompt_tokens += sample.value;
    if (sample.name == "vllm:generation_tokens_total") look.generated_tokens += sample.value;
    if (sample.name == "vllm:nixl_bytes_transferred_sum") look.kv_bytes += sample.value;
    if (sample.name == "wideep:expert_rows_total") look.expert_rows += sample.value;
    if (sample.name == "wideep:local_experts") look.num_experts += sample.value;
  });
  return look;
}

std::map<std::string, RouteReport::Look> RouteReport::differences(
    const CompletionResult& result) const {
  const std::string decode = name_of_route(result.decode_route);
  std::map<std::string, Look> moved;
  for (int i = 0; i < kLooksMax; ++i) {
    for (const Endpoint& endpoint : endpoints_) {
      const auto now = look(endpoint.address);
      if (!now) continue;
      moved[endpoint.name] = {
          .prompt_tokens = now->prompt_tokens - endpoint.before.prompt_tokens,
          .generated_tokens = now->generated_tokens - endpoint.before.generated_tokens,
          .kv_bytes = now->kv_bytes - endpoint.before.kv_bytes,
          .expert_rows = now->expert_rows - endpoint.before.expert_rows,
          .num_experts = now->num_experts};
    }
    if (moved[decode].generated_tokens >= static_cast<double>(result.completion_tokens)) break;
  }
  return moved;
}

std::string RouteReport::experts_line(const std::map<std::string, Look>& moved,
                                      const std::string& role) const {
  std::string text;
  for (const Endpoint& endpoint : endpoints_) {
    const auto look = moved.find(endpoint.name);
    if (endpoint.role != role || look == moved.end() || look->second.expert_rows <= 0) continue;
    text += fmt::format("{}{}: {:.0f} rows", text.empty() ? "" : ", ", endpoint.name,
                        look->second.expert_rows);
    if (look->second.num_experts > 0)
      text += fmt::format(" in {:.0f} experts", look->second.num_experts);
  }
  return text;
}

std::vector<std::string> RouteReport::end(const CompletionResult& result) {
  const std::map<std::string, Look> moved = differences(result);
  const std::string decode = name_of_route(result.decode_route);
  const std::string prefill = name_of_route(result.prefill_route);
  std::vector<std::string> lines;
  const auto add = [&](std::string_view what, const std::string& text) {
    if (!text.empty()) lines.push_back(fmt::format("  {:<9} {}", what, text));
  };
  const auto of = [&](const std::string& name) {
    const auto look = moved.find(name);
    return look == moved.end() ? Look{} : look->second;
  };
  if (!prefill.empty()) {
    add("prefill", fmt::format("{} at {} computed the prompt: {} tokens ({} of them cached)",
                               prefill, address_of_route(result.prefill_route),
                               result.prompt_tokens, result.cached_tokens));
    add("experts", experts_line(moved, "prefill"));
    if (of(decode).kv_bytes > 0) {
      add("KV",
          fmt::format("{} moved from {} to {}", bytes_text(of(decode).kv_bytes), prefill, decode));
    }
  }
  if (!decode.empty()) {
    add("decode", fmt::format("{} at {} generated {:.0f} tokens", decode,
                              address_of_route(result.decode_route), of(decode).generated_tokens));
    add("experts", experts_line(moved, "decode"));
  }
  return lines;
}

}  // namespace wideep::cmd
