#include "launcher/host_link.h"

#include "base/check.h"
#include "base/log.h"

#include <poll.h>

#include <algorithm>
#include <utility>

namespace wideep::launcher {
namespace {

constexpr std::chrono::milliseconds kConnectAtOnce{400};  // then see whether it is the end
constexpr std::chrono::milliseconds kPause{500};          // between attempts

TimePoint now() {
  return real_clock().now();
}

}  // namespace

HostLink::HostLink(HostLinkOptions options)
    : options_(std::move(options)),
      ready_(static_cast<size_t>(options_.ranks.count)),
      connections_(options_.connections_max) {
  Result<fabric::Event> wake = fabric::Event::create();
  WD_CHECK(wake.has_value());
  wake_ = *std::move(wake);
  thread_ = std::thread([this] { run(); });
}

HostLink::~HostLink() {
  is_stopping_ = true;
  wake_.set();
  thread_.join();
  connections_.end_all();
}

void HostLink::set_ready(std::vector<bool> ready) {
  {
    const std::scoped_lock lock(mutex_);
    WD_CHECK(ready.size() == ready_.size());
    ready_ = std::move(ready);
  }
  wake_.set();
}

void HostLink::run() {
  TimePoint complain_at = now();
  while (!is_stopping_) {
    const auto stream = introduce();
    Status outcome = stream ? Status{} : std::unexpected(stream.error());
    if (stream) {
      log_info("the door at {} has {}", options_.door.to_string(), options_.ranks.describe());
      outcome = converse(**stream);
      complain_at = now();
    }
    if (is_stopping_) return;
    if (now() >= complain_at) {
      log_warning("no door at {}: {}", options_.door.to_string(), outcome.error().message);
      complain_at = now() + options_.complain_every;
    }
    pollfd end{.fd = wake_.fd(), .events = POLLIN, .revents = 0};
    poll(&end, 1, static_cast<int>(kPause.count()));
    if (end.revents != 0) wake_.clear();
  }
}

Result<std::unique_ptr<fabric::Stream>> HostLink::call(const HostGreeting& greeting) const {
  WD_ASSIGN_OR_RETURN(fabric::UniqueFd socket,
                      fabric::connect_to(options_.door, now() + kConnectAtOnce));
  WD_TRY(fabric::prepare_socket(socket.get(), {.silence_max = options_.silence_max}));
  const TimePoint deadline = now() + options_.patience;
  WD_ASSIGN_OR_RETURN(
      std::unique_ptr<fabric::Stream> stream,
      fabric::open_stream(std::move(socket), fabric::TlsRole::kClient, options_.key, deadline));
  WD_TRY(fabric::write_all(*stream, encode(greeting), deadline));
  return stream;
}

// A link that the door has welcomed.
Result<std::unique_ptr<fabric::Stream>> HostLink::introduce() const {
  WD_ASSIGN_OR_RETURN(std::unique_ptr<fabric::Stream> stream,
                      call({.kind = HostGreeting::Kind::kHost,
                            .num_ranks = options_.num_ranks,
                            .ranks = options_.ranks}));
  const TimePoint deadline = now() + options_.patience;
  uint16_t length = 0;
  WD_TRY(fabric::read_all(*stream, std::as_writable_bytes(std::span(&length, 1)), deadline));
  if (length > kRefusalBytesMax) return invalid_argument("it says {} bytes", length);
  std::string refusal(length, '\0');
  WD_TRY(fabric::read_all(*stream, std::as_writable_bytes(std::span(refusal)), deadline));
  if (!refusal.empty()) return invalid_argument("it says: {}", refusal);
  return stream;
}

// Until the door is gone, or it is the end.
Status HostLink::converse(fabric::Stream& stream) {
  std::vector<bool> told;
  TimePoint beat_at = now();
  std::vector<std::byte> input;
  while (!is_stopping_) {
    std::vector<bool> ready;
    {
      const std::scoped_lock lock(mutex_);
      ready = ready_;
    }
    if (ready != told || now() >= beat_at) {
      WD_TRY(fabric::write_all(stream, encode_ready(ready), now() + options_.patience));
      told = std::move(ready);
      beat_at = now() + options_.beat;
    }
    std::array<std::byte, 1024> bytes{};
    WD_ASSIGN_OR_RETURN(const size_t count, stream.read(bytes));
    input.insert(input.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    WD_TRY(take_calls(input));
    if (count == 0) wait_for_either(stream, wake_, beat_at);
  }
  return {};
}

// Connects what has come to the ranks, each on a thread: a handshake takes its time.
Status HostLink::take_calls(std::vector<std::byte>& input) {
  while (input.size() >= kCallBytes) {
    WD_ASSIGN_OR_RETURN(const HostCall call,
                        parse_host_call(std::span(input).first<kCallBytes>(), options_.ranks));
    input.erase(input.begin(), input.begin() + kCallBytes);
    auto rank = fabric::connect_to(net::Address::unix_socket(options_.socket_of(call.rank)), now());
    Status started =
        rank ? connections_.start(*std::move(rank), 0,
                                  [this, call](fabric::UniqueFd socket) {
                                    const Status ended = answer(call, std::move(socket));
                                    if (!ended)
                                      log_warning("rank {}: {}", call.rank, ended.error().message);
                                  })
             : Status(std::unexpected(rank.error()));
    if (!started) log_warning("rank {}: {}", call.rank, started.error().message);
  }
  return {};
}

Status HostLink::answer(const HostCall& asked, fabric::UniqueFd rank) const {
  WD_ASSIGN_OR_RETURN(const std::unique_ptr<fabric::Stream> door,
                      call({.kind = HostGreeting::Kind::kCall,
                            .num_ranks = options_.num_ranks,
                            .ranks = options_.ranks,
                            .call = asked.id}));
  const auto own = fabric::plain_stream(std::move(rank));
  relay(*own, *door);
  return {};
}

}  // namespace wideep::launcher
