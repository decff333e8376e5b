#include "cmd/ep_group.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace wideep::cmd {
namespace {

using fabric::UniqueFd;

constexpr std::chrono::seconds kStartTimeout{60};
constexpr std::chrono::seconds kAnswerTimeout{300};  // the largest trials touch gigabytes first
constexpr std::chrono::seconds kGoodbyeTimeout{10};

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kUnavailable, "bench ep: {}: {}", what, strerrordesc_np(errno));
}

struct Address {
  sockaddr_un name{.sun_family = AF_UNIX, .sun_path = {}};
  socklen_t length = 0;
};

// In the abstract namespace: nothing to clean up.
Address address_of(const std::string& name) {
  Address address;
  const size_t length = std::min(name.size(), sizeof address.name.sun_path - 1);
  std::memcpy(address.name.sun_path + 1, name.data(), length);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  return address;
}

bool readable(int fd, TimePoint deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - real_clock().now());
    if (left.count() <= 0) return false;
    pollfd poll_fd{.fd = fd, .events = POLLIN, .revents = 0};
    if (poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(left.count(), 1000))) > 0) return true;
  }
}

// Takes the call of a rank that nobody has been yet.
Status accept_rank(const UniqueFd& listener, TimePoint deadline, std::vector<UniqueFd>& ranks) {
  if (!readable(listener.get(), deadline))
    return error(ErrorCode::kTimeout, "bench ep: not all ranks started");
  UniqueFd socket(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) return failed("accept");
  ucred credentials{};
  socklen_t length = sizeof credentials;
  getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length);
  int32_t rank = -1;
  if (credentials.uid != geteuid() || !readable(socket.get(), deadline) ||
      recv(socket.get(), &rank, sizeof rank, 0) != sizeof rank || rank < 0 ||
      rank >= std::ssize(ranks) || ranks[static_cast<size_t>(rank)])
    return invalid_argument("bench ep: a stranger called");
  ranks[static_cast<size_t>(rank)] = std::move(socket);
  return {};
}

// Waits for a child; ends it if it does not go by itself.
void bury(pid_t child) {
  const TimePoint deadline = real_clock().now() + kGoodbyeTimeout;
  while (waitpid(child, nullptr, WNOHANG) == 0) {
    if (real_clock().now() > deadline) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      return;
    }
    poll(nullptr, 0, 5);
  }
}

}  // namespace

Result<std::unique_ptr<EpGroup>> EpGroup::start(
    int32_t num_ranks,
    const std::function<Result<std::vector<pid_t>>(const std::string& name)>& launch) {
  static int number = 0;
  const std::string name = fmt::format("wideep-bench-ep-{}-{}", getpid(), number++);
  const Address address = address_of(name);
  UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!listener ||
      bind(listener.get(), reinterpret_cast<const sockaddr*>(&address.name), address.length) != 0 ||
      listen(listener.get(), num_ranks) != 0)
    return failed("listen");
  auto group = std::make_unique<EpGroup>(Started{});
  group->ranks_.resize(static_cast<size_t>(num_ranks));
  WD_ASSIGN_OR_RETURN(group->children_, launch(name));
  const TimePoint deadline = real_clock().now() + kStartTimeout;
  for (int32_t i = 0; i < num_ranks; ++i)
    WD_TRY(accept_rank(listener, deadline, group->ranks_));
  return group;
}

EpGroup::~EpGroup() {
  const EpOrder quit{.kind = EpOrder::Kind::kQuit};
  for (const UniqueFd& rank : ranks_)
    if (rank) send(rank.get(), &quit, sizeof quit, MSG_NOSIGNAL | MSG_DONTWAIT);
  ranks_.clear();
  for (const pid_t child : children_)
    bury(child);
}

Result<std::vector<EpAnswer>> EpGroup::order(const EpOrder& order) {
  for (size_t r = 0; r < ranks_.size(); ++r)
    if (send(ranks_[r].get(), &order, sizeof order, MSG_NOSIGNAL) != sizeof order)
      return error(ErrorCode::kPeerLost, "bench ep: rank {} is gone", r);
  const TimePoint deadline = real_clock().now() + kAnswerTimeout;
  std::vector<EpAnswer> answers;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    WD_ASSIGN_OR_RETURN(answers.emplace_back(), answer_of(r, deadline));
  }
  return answers;
}

Result<EpAnswer> EpGroup::answer_of(size_t rank, TimePoint deadline) {
  if (!readable(ranks_[rank].get(), deadline))
    return error(ErrorCode::kTimeout, "bench ep: rank {} does not answer", rank);
  EpAnswer answer;
  if (recv(ranks_[rank].get(), &answer, sizeof answer, 0) != sizeof answer)
    return error(ErrorCode::kPeerLost, "bench ep: rank {} is gone", rank);
  answer.error[sizeof answer.error - 1] = '\0';
  if (answer.error[0] != '\0') return error(ErrorCode::kUnavailable, "{}", answer.error);
  return answer;
}

Result<UniqueFd> EpGroup::call(const std::string& name, RankId rank) {
  const Address address = address_of(name);
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const int32_t number = index(rank);
  if (!socket ||
      connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.name), address.length) !=
          0 ||
      send(socket.get(), &number, sizeof number, MSG_NOSIGNAL) != sizeof number)
    return failed("call");
  return socket;
}

std::vector<pid_t> fork_ranks(int32_t num_ranks, const std::function<int(RankId)>& body) {
  std::vector<pid_t> children;
  for (int32_t r = 0; r < num_ranks; ++r) {
    const pid_t child = fork();
    if (child == 0) _exit(body(RankId{r}));
    if (child > 0) children.push_back(child);
  }
  return children;
}

Result<std::vector<pid_t>> start_program(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command)
    arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) return failed("fork");
  if (child == 0) {
    dup2(STDERR_FILENO, STDOUT_FILENO);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  return std::vector{child};
}

}  // namespace wideep::cmd
