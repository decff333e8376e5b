// Internal to http: the client's pool of connections, and one call on it.
#pragma once

#include "http/client.h"
#include "http/socket_pump.h"
#include "net/asio.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace wideep::http {

// Open connections by address. Thread: the loop's.
class Client::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(net::EventLoop& loop, ClientOptions options) : loop_(loop), options_(options) {}

  net::EventLoop& loop() { return loop_; }

  const ClientOptions& options() const { return options_; }

  void begin(const std::shared_ptr<CallHandle::Core>& call);

  void end(const std::shared_ptr<CallHandle::Core>& call) { calls_.erase(call); }

  void cancel_all();

  // A kept connection that is still good, or nullptr.
  std::shared_ptr<SocketPump> take_idle(const std::string& key);
  // Counts a new connection; false at the limit.
  bool count_open(const std::string& key);
  // Takes back what take_idle or count_open gave: to keep it, or to close it.
  void give_back(const std::string& key, const std::shared_ptr<SocketPump>& pump);
  void discard(const std::string& key, const std::shared_ptr<SocketPump>& pump);

  int num_idle() const;

  int num_calls() const { return static_cast<int>(calls_.size()); }

 private:
  struct Idle {
    std::shared_ptr<SocketPump> pump;
    TimePoint since;
  };

  struct Pool {
    int num_open = 0;
    std::vector<Idle> idle;  // the last is the most recent
  };

  void drop_idle(const std::string& key, const SocketPump* pump);
  void sweep();

  net::EventLoop& loop_;
  const ClientOptions options_;
  std::map<std::string, Pool> pools_;
  std::set<std::shared_ptr<CallHandle::Core>> calls_;
  bool sweeping_ = false;
  bool closed_ = false;
};

// One call, from connecting to on_done. Thread: the loop's.
class CallHandle::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(std::shared_ptr<Client::Core> client, Call call, CallEvents events);

  void start();
  void cancel();
  void hang_up(Duration patience);
  void set_paused(bool paused);

  net::EventLoop& loop() { return client_->loop(); }

 private:
  template <typename T>
  using Awaitable = net::asio::awaitable<T>;

  Awaitable<CallResult> run();
  Awaitable<CallResult> connect();
  Awaitable<std::expected<net::Protocol::endpoint, Error>> resolve(TimePoint deadline);
  // Sends the request and passes the response on.
  Awaitable<CallResult> converse();
  Awaitable<std::expected<ResponseHead, CallFailure>> read_head();
  Awaitable<CallResult> read_body(const ResponseHead& head);
  // Waits for whatever comes next; the failure if it must not go on.
  Awaitable<CallResult> wait(CallFailure::Stage stage, TimePoint deadline, std::string_view what);
  void finish(const CallResult& result);

  std::unexpected<CallFailure> fail(CallFailure::Stage stage,
                                    ErrorCode code,
                                    std::string_view message) const;
  std::string render_request() const;

  const std::shared_ptr<Client::Core> client_;  // shared with the client and other calls
  const Call call_;
  CallEvents events_;
  const std::string key_;
  TimePoint deadline_;
  std::shared_ptr<SocketPump> pump_;  // shared with its pending operations
  int64_t written_before_ = 0;        // by the calls that used this connection earlier
  bool starting_ = false;             // start() has not returned
  bool cancelled_ = false;
  bool hung_up_ = false;
  bool paused_ = false;
};

}  // namespace wideep::http
