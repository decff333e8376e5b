#include "fabric/reception.h"

#include "base/log.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <utility>

namespace wideep::fabric {
namespace {

// Then one line for so many: who calls again and again does not fill the disk.
constexpr int64_t kLoggedOneByOne = 20;
constexpr int64_t kLoggedTogether = 1000;

}  // namespace

Result<std::unique_ptr<Reception>> Reception::open(ReceptionOptions options, Hear hear) {
  WD_ASSIGN_OR_RETURN(Event heard, Event::create());
  return std::make_unique<Reception>(std::move(options), std::move(hear), std::move(heard));
}

Reception::Reception(ReceptionOptions options, Hear hear, Event heard)
    : options_(std::move(options)), hear_(std::move(hear)), heard_(std::move(heard)) {}

Reception::~Reception() {
  for (const Caller& caller : callers_)
    shutdown(caller.socket.get(), SHUT_RDWR);
  for (Caller& caller : callers_)
    caller.thread.join();
}

std::array<pollfd, 2> Reception::polled() const {
  return {pollfd{.fd = is_full() ? -1 : options_.listener, .events = POLLIN, .revents = 0},
          pollfd{.fd = heard_.fd(), .events = POLLIN, .revents = 0}};
}

Result<std::vector<Guest>> Reception::take() {
  heard_.clear();
  std::vector<Guest> guests;
  for (auto caller = callers_.begin(); caller != callers_.end();) {
    if (!caller->is_heard) {
      ++caller;
      continue;
    }
    caller->thread.join();
    if (caller->guest) {
      guests.push_back(*std::move(caller->guest));
    } else {
      refuse(caller->guest.error());
    }
    caller = callers_.erase(caller);
  }
  WD_TRY(let_in());
  return guests;
}

void Reception::refuse(const Error& reason) {
  ++num_refused_;
  if (num_refused_ > kLoggedOneByOne && num_refused_ % kLoggedTogether != 0) return;
  log_warning("{}: refused a caller: {} ({} so far)", options_.name, reason.message, num_refused_);
}

Status Reception::let_in() {
  while (!is_full()) {
    WD_ASSIGN_OR_RETURN(std::optional<UniqueFd> socket, accept_waiting(options_.listener));
    if (!socket) return {};
    UniqueFd second(fcntl(socket->get(), F_DUPFD_CLOEXEC, 0));
    if (!second) return error(ErrorCode::kExhausted, "no descriptor for a caller");
    Caller& caller = callers_.emplace_back();
    caller.socket = std::move(second);
    caller.thread = std::thread([this, &caller, own = *std::move(socket)]() mutable {
      caller.guest = hear_words(std::move(own));
      caller.is_heard = true;
      heard_.set();
    });
  }
  return {};
}

Result<Guest> Reception::hear_words(UniqueFd socket) const {
  const TimePoint deadline = real_clock().now() + options_.patience;
  WD_TRY(prepare_socket(socket.get(), options_.tcp));
  Guest guest;
  WD_ASSIGN_OR_RETURN(guest.stream,
                      open_stream(std::move(socket), TlsRole::kServer, options_.key, deadline));
  WD_ASSIGN_OR_RETURN(guest.words, hear_(*guest.stream, deadline));
  return guest;
}

}  // namespace wideep::fabric
