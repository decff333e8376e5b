#include "cmd/completion_call.h"

#include "epp/headers.h"
#include "http/sse.h"

#include <future>
#include <memory>

namespace wideep::cmd {
namespace {

constexpr size_t kErrorBodyBytesMax = 64 * 1024;

std::string string_at(const Json* parent, std::string_view key) {
  const Json* value = parent != nullptr ? parent->find(key) : nullptr;
  const std::string* text = value != nullptr ? value->as_string() : nullptr;
  return text != nullptr ? *text : "";
}

int64_t int_at(const Json* parent, std::string_view key) {
  const Json* value = parent != nullptr ? parent->find(key) : nullptr;
  return value != nullptr ? value->as_int().value_or(0) : 0;
}

const Json* first_choice(const Json& chunk) {
  const Json* choices = chunk.find("choices");
  const Json::Array* items = choices != nullptr ? choices->as_array() : nullptr;
  return items != nullptr && !items->empty() ? &items->front() : nullptr;
}

// The message of an OpenAI error body, or the body's beginning.
std::string error_message(std::string_view body) {
  if (const auto parsed = parse_json(body)) {
    if (const std::string message = string_at(parsed->find("error"), "message"); !message.empty())
      return message;
  }
  return std::string(body.substr(0, 200));
}

// A call under way: takes the stream apart and keeps the times.
class Stream {
 public:
  explicit Stream(CompletionCall call) : call_(std::move(call)) {
    result_.start = real_clock().now();
  }

  void on_head(const http::ResponseHead& head) {
    result_.status = head.status;
    result_.decode_route = head.headers.get(epp::kDecodeRouteHeader);
    result_.prefill_route = head.headers.get(epp::kPrefillRouteHeader);
  }

  void on_body(std::string_view bytes) {
    if (result_.status != 200) {
      error_body_.append(
          bytes.substr(0, kErrorBodyBytesMax - std::min(kErrorBodyBytesMax, error_body_.size())));
      return;
    }
    const Status fed =
        parser_.feed(bytes, [this](const http::Event& event) { on_event(event.data); });
    if (!fed && result_.error.empty()) result_.error = fed.error().message;
  }

  void on_done(const http::CallResult& outcome) {
    result_.total = real_clock().now() - result_.start;
    if (!outcome) {
      result_.error = outcome.error().error.message;
    } else if (result_.status != 200) {
      result_.error = fmt::format("HTTP {}: {}", result_.status, error_message(error_body_));
    } else if (!ended_ && result_.error.empty()) {
      result_.error = "the stream ended without [DONE]";
    }
    call_.on_done(std::move(result_));
  }

 private:
  void on_event(std::string_view data) {
    if (data == "[DONE]") {
      ended_ = true;
      return;
    }
    const auto chunk = parse_json(data);
    if (!chunk) {
      result_.error = chunk.error().message;
      return;
    }
    if (const Json* error = chunk->find("error")) result_.error = string_at(error, "message");
    take_usage(*chunk);
    take_text(*chunk);
  }

  void take_usage(const Json& chunk) {
    const Json* usage = chunk.find("usage");
    if (usage == nullptr || !usage->is_object()) return;
    result_.prompt_tokens = int_at(usage, "prompt_tokens");
    result_.completion_tokens = int_at(usage, "completion_tokens");
    result_.cached_tokens = int_at(usage->find("prompt_tokens_details"), "cached_tokens");
  }

  void take_text(const Json& chunk) {
    const std::string finish = string_at(first_choice(chunk), "finish_reason");
    if (!finish.empty()) result_.finish_reason = finish;
    const ChunkText piece = text_of_chunk(chunk);
    if (piece.text.empty() && piece.reasoning.empty()) return;
    const TimePoint now = real_clock().now();
    if (result_.first_token == Duration{}) {
      result_.first_token = now - result_.start;
    } else {
      result_.gaps.push_back(now - last_token_);
    }
    last_token_ = now;
    result_.text += piece.text;
    result_.reasoning += piece.reasoning;
    if (!call_.on_text) return;
    if (!piece.reasoning.empty()) call_.on_text(piece.reasoning, true);
    if (!piece.text.empty()) call_.on_text(piece.text, false);
  }

  CompletionCall call_;
  CompletionResult result_;
  http::EventParser parser_;
  std::string error_body_;
  TimePoint last_token_{};
  bool ended_ = false;
};

}  // namespace

Result<ServerUrl> ServerUrl::parse(const std::string& url) {
  if (url.starts_with("unix:")) return ServerUrl{net::Address::unix_socket(url.substr(5)), ""};
  if (url.starts_with("https://")) {
    return invalid_argument("{}: TLS is not spoken here; put a proxy in front", url);
  }
  std::string rest = url.starts_with("http://") ? url.substr(7) : url;
  std::string base;
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    base = rest.substr(slash);
    rest.resize(slash);
    if (base.ends_with("/")) base.pop_back();
    if (base.ends_with("/v1")) base.resize(base.size() - 3);
  }
  const bool has_port =
      rest.find(':', rest.find(']') == std::string::npos ? 0 : rest.find(']')) != std::string::npos;
  WD_ASSIGN_OR_RETURN(net::Address address, net::parse_address(has_port ? rest : rest + ":80"));
  return ServerUrl{std::move(address), std::move(base)};
}

ChunkText text_of_chunk(const Json& chunk) {
  const Json* choice = first_choice(chunk);
  if (choice == nullptr) return {};
  if (const Json* delta = choice->find("delta")) {
    return {string_at(delta, "content"), string_at(delta, "reasoning_content")};
  }
  return {string_at(choice, "text"), ""};
}

http::CallHandle start_completion(http::Client& client, CompletionCall call) {
  call.body.set("stream", true);
  call.body.set("stream_options", Json(Json::Object{{"include_usage", Json(true)}}));
  http::Call request;
  request.address = call.server.address;
  request.method = "POST";
  request.target = call.server.target(call.path);
  request.headers.set("content-type", "application/json");
  if (!call.api_key.empty()) request.headers.set("authorization", "Bearer " + call.api_key);
  request.body = call.body.dump();
  request.head_timeout = call.timeout;
  request.idle_timeout = call.timeout;
  request.total_timeout = call.timeout;
  // The three callbacks of one call share its state.
  auto stream = std::make_shared<Stream>(std::move(call));
  return client.start(
      std::move(request),
      {.on_head = [stream](const http::ResponseHead& head) { stream->on_head(head); },
       .on_body = [stream](std::string_view bytes) { stream->on_body(bytes); },
       .on_done = [stream](const http::CallResult& result) { stream->on_done(result); }});
}

CompletionResult complete(http::Client& client, CompletionCall call) {
  std::promise<CompletionResult> done;
  call.on_done = [&done](CompletionResult result) { done.set_value(std::move(result)); };
  start_completion(client, std::move(call));
  return done.get_future().get();
}

}  // namespace wideep::cmd
