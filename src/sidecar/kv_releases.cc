#include "sidecar/kv_releases.h"

#include "base/log.h"

#include <fmt/format.h>

#include <utility>

namespace wideep::sidecar {
namespace {

// Of the engine: a ticket will not be used. Engines without it let the KV expire.
constexpr std::string_view kPath = "/kv_transfer/release";

}  // namespace

struct KvReleases::Release {
  http::Call call;
  std::string request;
  int num_tries = 0;
  std::chrono::milliseconds pause;  // before the next try
  int status = 0;                   // of the last answer
};

void KvReleases::release(http::Call call, const Json& params, std::string request) {
  if (num_pending_ >= options_.pending_max) {
    log_warning("request {}: {} releases are pending: its KV is left to its lease", request,
                num_pending_);
    return;
  }
  call.method = "POST";
  call.target = kPath;
  call.headers.set("content-type", "application/json");
  Json body;
  body.set("kv_transfer_params", params);
  call.body = body.dump();
  call.total_timeout = options_.call_timeout;
  ++num_pending_;
  // Shared by the callbacks of its calls and the timer between them.
  send(std::make_shared<Release>(
      Release{std::move(call), std::move(request), 0, options_.pause_first}));
}

void KvReleases::send(const std::shared_ptr<Release>& release) {
  ++release->num_tries;
  release->status = 0;
  client_.start(
      http::Call(release->call),
      {.on_head = [release](const http::ResponseHead& head) { release->status = head.status; },
       .on_body = {},
       .on_done =
           [self = weak_from_this(), release](const http::CallResult& result) {
             if (const auto releases = self.lock()) releases->sent(release, result);
           }});
}

void KvReleases::sent(const std::shared_ptr<Release>& release, const http::CallResult& result) {
  const bool is_heard = result && release->status < 500;
  if (is_heard || release->num_tries >= options_.tries_max) {
    --num_pending_;
    if (!is_heard)
      log_warning("request {}: the engine was not told to let its KV go: {}; left to its lease",
                  release->request,
                  result ? fmt::format("HTTP {}", release->status) : result.error().error.message);
    return;
  }
  loop_.post_after(release->pause, [self = weak_from_this(), release] {
    if (const auto releases = self.lock()) releases->send(release);
  });
  release->pause *= 2;
}

}  // namespace wideep::sidecar
