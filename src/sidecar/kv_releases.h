// Tells the local engine to let go of KV that a prefill keeps and nobody will pull.
//
// An engine that is down, or cannot at the moment, is told again, at growing intervals, a bounded
// number of times; after that the lease's deadline ends it, at the prefill. Once too often does no
// harm. Ownership: borrows loop and client; may go with releases under way, which are dropped.
// Thread: the loop's.
#pragma once

#include "base/json.h"
#include "http/client.h"
#include "net/event_loop.h"

#include <chrono>
#include <memory>
#include <string>

namespace wideep::sidecar {

struct KvReleaseOptions {
  std::chrono::milliseconds call_timeout{5'000};
  int tries_max = 7;  // 250 ms, then twice as long after each: 16 s
  std::chrono::milliseconds pause_first{250};
  int pending_max = 1'024;  // at a time; more are left to their leases
};

class KvReleases : public std::enable_shared_from_this<KvReleases> {
 public:
  KvReleases(net::EventLoop& loop, http::Client& client, KvReleaseOptions options)
      : loop_(loop), client_(client), options_(options) {}

  // `params`: the prefill's kv_transfer_params. `call` says where the engine is, and has the
  // request's headers. `request` names it in the log.
  void release(http::Call call, const Json& params, std::string request);

  // Releases that are under way or wait for their next try.
  int num_pending() const { return num_pending_; }

 private:
  struct Release;

  void send(const std::shared_ptr<Release>& release);
  void sent(const std::shared_ptr<Release>& release, const http::CallResult& result);

  net::EventLoop& loop_;
  http::Client& client_;
  const KvReleaseOptions options_;
  int num_pending_ = 0;
};

}  // namespace wideep::sidecar
