// The client's face and its pool; http/client_call.cc has the calls.
#include "http/client.h"

#include "http/client_call.h"

#include <algorithm>
#include <future>
#include <utility>

namespace wideep::http {
namespace {

constexpr std::chrono::seconds kSweepInterval{1};

}  // namespace

void CallHandle::cancel() {
  if (const auto core = core_.lock()) core->loop().post([core] { core->cancel(); });
}

void CallHandle::hang_up(Duration patience) {
  if (const auto core = core_.lock())
    core->loop().post([core, patience] { core->hang_up(patience); });
}

void CallHandle::pause() {
  if (const auto core = core_.lock()) core->loop().post([core] { core->set_paused(true); });
}

void CallHandle::resume() {
  if (const auto core = core_.lock()) core->loop().post([core] { core->set_paused(false); });
}

Client::Client(net::EventLoop& loop, ClientOptions options)
    : core_(std::make_shared<Core>(loop, options)) {}

Client::~Client() {
  core_->loop().run_and_wait([this] { core_->cancel_all(); });
  core_->loop().settle([this] { return core_->num_calls() == 0; });
}

CallHandle Client::start(Call call, CallEvents events) {
  const auto core = std::make_shared<CallHandle::Core>(core_, std::move(call), std::move(events));
  if (core_->loop().in_loop_thread()) {
    core_->begin(core);
  } else {
    core_->loop().post([client = core_, core] { client->begin(core); });
  }
  return CallHandle(core);
}

std::expected<Response, CallFailure> Client::fetch(Call call, int64_t body_bytes_max) {
  struct State {
    Response response;
    bool too_large = false;
    CallHandle handle;
    std::promise<CallResult> done;
  };

  State state;
  CallEvents events;
  events.on_head = [&](const ResponseHead& head) {
    state.response.status = head.status;
    state.response.headers = head.headers;
  };
  events.on_body = [&](std::string_view bytes) {
    if (static_cast<int64_t>(state.response.body.size() + bytes.size()) > body_bytes_max) {
      state.too_large = true;
      state.handle.cancel();
    } else {
      state.response.body += bytes;
    }
  };
  events.on_done = [&](const CallResult& result) { state.done.set_value(result); };
  // The handle is set before anything is heard of the call.
  core_->loop().run_and_wait([&] { state.handle = start(std::move(call), std::move(events)); });
  const CallResult result = state.done.get_future().get();
  if (state.too_large) {
    return std::unexpected(
        CallFailure{CallFailure::Stage::kAnswering,
                    Error{ErrorCode::kExhausted,
                          fmt::format("the response has more than {} bytes", body_bytes_max)}});
  }
  if (!result) return std::unexpected(result.error());
  return std::move(state.response);
}

int Client::num_idle() const {
  int num_idle = 0;
  core_->loop().run_and_wait([&] { num_idle = core_->num_idle(); });
  return num_idle;
}

void Client::Core::begin(const std::shared_ptr<CallHandle::Core>& call) {
  calls_.insert(call);
  if (closed_) call->cancel();
  call->start();
}

void Client::Core::cancel_all() {
  closed_ = true;
  for (auto& [key, pool] : pools_) {
    for (const Idle& idle : std::exchange(pool.idle, {})) {
      idle.pump->set_listener(nullptr);
      idle.pump->close();
    }
  }
  const auto calls = calls_;
  for (const auto& call : calls)
    call->cancel();
}

std::shared_ptr<SocketPump> Client::Core::take_idle(const std::string& key) {
  std::vector<Idle>& idle = pools_[key].idle;
  if (idle.empty()) return nullptr;
  std::shared_ptr<SocketPump> pump = std::move(idle.back().pump);
  idle.pop_back();
  pump->set_listener(nullptr);
  return pump;
}

bool Client::Core::count_open(const std::string& key) {
  Pool& pool = pools_[key];
  if (pool.num_open >= options_.connections_per_address_max) return false;
  ++pool.num_open;
  return true;
}

void Client::Core::give_back(const std::string& key, const std::shared_ptr<SocketPump>& pump) {
  Pool& pool = pools_[key];
  if (closed_ || static_cast<int>(pool.idle.size()) >= options_.idle_per_address_max) {
    discard(key, pump);
    return;
  }
  pool.idle.push_back({pump, std::chrono::steady_clock::now()});
  // Whatever happens on an idle connection (it is closed, or bytes come unasked) ends it.
  pump->set_listener([weak = weak_from_this(), key, raw = pump.get()] {
    if (const auto self = weak.lock()) self->drop_idle(key, raw);
  });
  pump->start_read();
  if (!sweeping_) sweep();
}

void Client::Core::discard(const std::string& key, const std::shared_ptr<SocketPump>& pump) {
  Pool& pool = pools_[key];
  if (--pool.num_open == 0 && pool.idle.empty()) pools_.erase(key);
  pump->close();
}

int Client::Core::num_idle() const {
  size_t total = 0;
  for (const auto& [key, pool] : pools_)
    total += pool.idle.size();
  return static_cast<int>(total);
}

void Client::Core::drop_idle(const std::string& key, const SocketPump* pump) {
  std::vector<Idle>& idle = pools_[key].idle;
  const auto it = std::ranges::find(idle, pump, [](const Idle& i) { return i.pump.get(); });
  if (it == idle.end()) return;
  const std::shared_ptr<SocketPump> dropped = it->pump;
  idle.erase(it);
  dropped->set_listener(nullptr);
  discard(key, dropped);
}

// Closes what has been idle for too long; rests when nothing is idle.
void Client::Core::sweep() {
  const TimePoint oldest = std::chrono::steady_clock::now() - options_.idle_timeout;
  std::vector<std::pair<std::string, const SocketPump*>> expired;
  for (const auto& [key, pool] : pools_) {
    for (const Idle& idle : pool.idle) {
      if (idle.since < oldest) expired.emplace_back(key, idle.pump.get());
    }
  }
  for (const auto& [key, pump] : expired)
    drop_idle(key, pump);
  sweeping_ = num_idle() > 0;
  if (!sweeping_) return;
  loop_.post_after(kSweepInterval, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->sweep();
  });
}

}  // namespace wideep::http
