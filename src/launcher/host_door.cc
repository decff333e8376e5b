#include "launcher/host_door.h"

#include "base/log.h"
#include "base/random.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace wideep::launcher {
namespace {

TimePoint now() {
  return real_clock().now();
}

Status send_verdict(fabric::Stream& stream, const Status& verdict, TimePoint deadline) {
  std::string text = verdict ? "" : verdict.error().message;
  text.resize(std::min(text.size(), kRefusalBytesMax));
  const auto length = static_cast<uint16_t>(text.size());
  WD_TRY(fabric::write_all(stream, std::as_bytes(std::span(&length, 1)), deadline));
  return fabric::write_all(stream, std::as_bytes(std::span(text)), deadline);
}

}  // namespace

Result<std::unique_ptr<HostDoor>> HostDoor::create(HostDoorOptions options) {
  auto door = std::make_unique<HostDoor>(Private{}, std::move(options));
  WD_TRY(door->listen());
  door->thread_ = std::thread([&door = *door] { door.run(); });
  return door;
}

HostDoor::HostDoor(Private, HostDoorOptions options)
    : options_(std::move(options)), connections_(options_.connections_max) {}

HostDoor::~HostDoor() {
  if (!thread_.joinable()) return;
  stop_.set();
  thread_.join();
  connections_.end_all();
}

Status HostDoor::listen() {
  WD_ASSIGN_OR_RETURN(tcp_, fabric::listen_at(options_.listen));
  address_ = options_.listen;
  if (!address_.is_unix()) {
    WD_ASSIGN_OR_RETURN(address_, fabric::local_address(tcp_.get(), options_.listen));
  }
  for (int32_t rank = 0; rank < options_.num_ranks; ++rank) {
    if (options_.own.contains(rank)) continue;
    WD_ASSIGN_OR_RETURN(listeners_[rank],
                        fabric::listen_at(net::Address::unix_socket(options_.socket_of(rank))));
  }
  WD_ASSIGN_OR_RETURN(stop_, fabric::Event::create());
  return {};
}

void HostDoor::run() {
  std::vector<pollfd> polled = {{.fd = stop_.fd(), .events = POLLIN, .revents = 0},
                                {.fd = tcp_.get(), .events = POLLIN, .revents = 0}};
  std::vector<int32_t> ranks;
  for (const auto& [rank, listener] : listeners_) {
    polled.push_back({.fd = listener.get(), .events = POLLIN, .revents = 0});
    ranks.push_back(rank);
  }
  for (;;) {
    poll(polled.data(), polled.size(), -1);
    if (polled[0].revents != 0) return;
    if (polled[1].revents != 0) accept_from(tcp_.get(), std::nullopt);
    for (size_t i = 0; i < ranks.size(); ++i)
      if (polled[i + 2].revents != 0) accept_from(polled[i + 2].fd, ranks[i]);
  }
}

// From a client, for a rank; or from another host.
void HostDoor::accept_from(int listener, std::optional<int32_t> rank) {
  std::optional<fabric::UniqueFd> socket = fabric::accept_patiently(listener, stop_.fd());
  if (!socket) return;
  Status started;
  if (!rank) {
    started = connections_.start(*std::move(socket), 0, [this](fabric::UniqueFd own) {
      const Status ended = take_call(std::move(own));
      if (!ended) log_warning("door: {}", ended.error().message);
    });
  } else if (const auto host = host_of(*rank)) {
    started = connections_.start(*std::move(socket), *host,
                                 [this, rank = *rank, host = *host](fabric::UniqueFd own) {
                                   const Status ended = serve_client(std::move(own), rank, host);
                                   if (!ended) log_warning("door: {}", ended.error().message);
                                 });
  }
  if (!started) log_warning("door: refused a connection: {}", started.error().message);
}

Status HostDoor::take_call(fabric::UniqueFd socket) {
  const TimePoint deadline = now() + options_.patience;
  WD_TRY(fabric::prepare_socket(socket.get(), {.silence_max = options_.liveness}));
  WD_ASSIGN_OR_RETURN(
      std::unique_ptr<fabric::Stream> stream,
      fabric::open_stream(std::move(socket), fabric::TlsRole::kServer, options_.key, deadline));
  std::array<std::byte, kGreetingBytes> bytes{};
  WD_TRY(fabric::read_all(*stream, bytes, deadline));
  WD_ASSIGN_OR_RETURN(const HostGreeting greeting, parse_host_greeting(bytes, options_.num_ranks));
  if (greeting.kind == HostGreeting::Kind::kHost) return serve_host(*stream, greeting);
  const std::scoped_lock lock(mutex_);
  const auto awaited = awaited_.find(greeting.call);
  if (awaited == awaited_.end()) return invalid_argument("a call that nobody has asked for");
  awaited->second = {.stream = std::move(stream), .has_come = true};
  came_.notify_all();
  return {};
}

Result<std::shared_ptr<HostDoor::Host>> HostDoor::admit(const HostGreeting& greeting) {
  auto host = std::make_shared<Host>();
  host->ranks = greeting.ranks;
  host->ready.resize(static_cast<size_t>(greeting.ranks.count));
  WD_ASSIGN_OR_RETURN(host->wake, fabric::Event::create());
  const std::scoped_lock lock(mutex_);
  const bool is_taken =
      greeting.ranks.overlaps(options_.own) || std::ranges::any_of(hosts_, [&](const auto& other) {
        return greeting.ranks.overlaps(other.second->ranks);
      });
  if (is_taken)
    return invalid_argument("{} of a host: another one has them", greeting.ranks.describe());
  host->id = next_host_++;
  hosts_[host->id] = host;
  return host;
}

Status HostDoor::serve_host(fabric::Stream& stream, const HostGreeting& greeting) {
  const Result<std::shared_ptr<Host>> admitted = admit(greeting);
  const Status verdict = admitted ? Status{} : std::unexpected(admitted.error());
  const Status told = send_verdict(stream, verdict, now() + options_.patience);
  WD_TRY(verdict);
  Host& host = **admitted;
  log_info("door: the host of {} has come", host.ranks.describe());
  const Status ended = told ? converse(stream, host) : told;
  {
    const std::scoped_lock lock(mutex_);
    hosts_.erase(host.id);
  }
  connections_.cut(host.id);
  options_.on_change();
  return with_context(ended.error(), fmt::format("the host of {}", host.ranks.describe()));
}

// Until it leaves or is silent for too long.
Status HostDoor::converse(fabric::Stream& stream, Host& host) {
  TimePoint deadline = now() + options_.liveness;
  std::vector<std::byte> input;
  for (;;) {
    std::array<std::byte, 1024> bytes{};
    WD_ASSIGN_OR_RETURN(const size_t count, stream.read(bytes));
    input.insert(input.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    if (count > 0) deadline = now() + options_.liveness;
    WD_TRY(take_ready(host, input));
    std::vector<HostCall> calls;
    {
      const std::scoped_lock lock(mutex_);
      calls.swap(host.calls);
    }
    for (const HostCall& call : calls)
      WD_TRY(fabric::write_all(stream, encode(call), now() + options_.patience));
    if (count > 0) continue;
    if (now() >= deadline) return error(ErrorCode::kTimeout, "no sign of life");
    wait_for_either(stream, host.wake, deadline);
  }
}

// What has come of its ranks' state, as far as it is complete.
Status HostDoor::take_ready(Host& host, std::vector<std::byte>& input) {
  const size_t size = host.ready.size();
  bool has_changed = false;
  while (input.size() >= size) {
    WD_ASSIGN_OR_RETURN(std::vector<bool> ready, parse_ready(std::span(input).first(size)));
    input.erase(input.begin(), input.begin() + static_cast<ptrdiff_t>(size));
    const std::scoped_lock lock(mutex_);
    has_changed = has_changed || ready != host.ready;
    host.ready = std::move(ready);
  }
  if (has_changed) options_.on_change();
  return {};
}

std::optional<int64_t> HostDoor::host_of(int32_t rank) const {
  const std::scoped_lock lock(mutex_);
  for (const auto& [id, host] : hosts_)
    if (host->ranks.contains(rank)) return id;
  return std::nullopt;
}

std::vector<int32_t> HostDoor::ready_ranks() const {
  const std::scoped_lock lock(mutex_);
  std::vector<int32_t> ranks;
  for (const auto& [id, host] : hosts_)
    for (int32_t i = 0; i < host->ranks.count; ++i)
      if (host->ready[static_cast<size_t>(i)]) ranks.push_back(host->ranks.first + i);
  std::ranges::sort(ranks);
  return ranks;
}

Status HostDoor::serve_client(fabric::UniqueFd socket, int32_t rank, int64_t host) {
  const auto client = fabric::plain_stream(std::move(socket));
  const auto connection = await_connection(rank, host);
  if (connection == nullptr)
    return error(ErrorCode::kTimeout, "the host of rank {} has not called back", rank);
  relay(*client, *connection);
  return {};
}

// Null if it does not come.
std::unique_ptr<fabric::Stream> HostDoor::await_connection(int32_t rank, int64_t host) {
  const uint64_t id = random_device_bits();
  std::unique_lock lock(mutex_);
  const auto present = hosts_.find(host);
  if (present == hosts_.end()) return nullptr;
  Awaited& awaited = awaited_[id];
  present->second->calls.push_back({.id = id, .rank = rank});
  present->second->wake.set();
  came_.wait_for(lock, options_.patience,
                 [&] { return awaited.has_come || !hosts_.contains(host); });
  std::unique_ptr<fabric::Stream> stream = std::move(awaited.stream);
  awaited_.erase(id);
  return stream;
}

}  // namespace wideep::launcher
