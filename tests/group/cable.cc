#include "cable.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

namespace wideep {
namespace {

using fabric::UniqueFd;

constexpr const char* kDevice = "cable";
constexpr size_t kFramesMax = 20'000;  // on their way; more are dropped, as a switch does
constexpr std::chrono::milliseconds kPollMax{20};

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kUnavailable, "{}: {}", what, std::strerror(errno));
}

ifreq request(const char* device) {
  ifreq request{};
  std::strncpy(request.ifr_name, device, sizeof request.ifr_name - 1);
  return request;
}

Status set_up(int socket, const char* device, bool up) {
  ifreq flags = request(device);
  if (ioctl(socket, SIOCGIFFLAGS, &flags) != 0) return failed("flags of a device");
  flags.ifr_flags = static_cast<short>(up ? flags.ifr_flags | IFF_UP : flags.ifr_flags & ~IFF_UP);
  if (ioctl(socket, SIOCSIFFLAGS, &flags) != 0) return failed("flags of a device");
  return {};
}

Status set_address(int socket, const char* device, const std::string& text) {
  ifreq address = request(device);
  auto* in = reinterpret_cast<sockaddr_in*>(&address.ifr_addr);
  in->sin_family = AF_INET;
  inet_pton(AF_INET, text.c_str(), &in->sin_addr);
  if (ioctl(socket, SIOCSIFADDR, &address) != 0) return failed("address of a device");
  inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
  if (ioctl(socket, SIOCSIFNETMASK, &address) != 0) return failed("mask of a device");
  return {};
}

// In the namespace of the calling thread.
Result<UniqueFd> make_device(const std::string& address) {
  UniqueFd device(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!device) return failed("/dev/net/tun");
  ifreq tap = request(kDevice);
  tap.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (ioctl(device.get(), TUNSETIFF, &tap) != 0) return failed("TAP device");
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  WD_TRY(set_address(socket.get(), kDevice, address));
  WD_TRY(set_up(socket.get(), kDevice, true));
  WD_TRY(set_up(socket.get(), "lo", true));
  return device;
}

// On a thread of its own, which may change its namespace.
Status elsewhere(const std::function<Status()>& body) {
  Status status;
  std::thread([&] { status = body(); }).join();
  return status;
}

}  // namespace

std::string Cable::address(int host) {
  return fmt::format("10.78.0.{}", host + 1);
}

Result<Cable::Host> Cable::make_host(int number) {
  Host host;
  WD_TRY(elsewhere([&]() -> Status {
    if (unshare(CLONE_NEWNET) != 0) return failed("a network namespace");
    host.network = UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!host.network) return failed("a network namespace");
    WD_ASSIGN_OR_RETURN(host.device, make_device(address(number)));
    return {};
  }));
  return host;
}

Result<std::unique_ptr<Cable>> Cable::make() {
  auto cable = std::make_unique<Cable>();
  for (int i = 0; i < 2; ++i) {
    WD_ASSIGN_OR_RETURN(cable->hosts_[i], make_host(i));
  }
  cable->thread_ = std::thread([self = cable.get()] { self->carry(); });
  return cable;
}

Cable::~Cable() {
  is_stopping_.store(true);
  if (thread_.joinable()) thread_.join();
}

Status Cable::move_to(int host) const {
  if (setns(hosts_[host].network.get(), CLONE_NEWNET) != 0) return failed("namespace");
  return {};
}

Status Cable::take_down(int host) const {
  return elsewhere([&]() -> Status {
    WD_TRY(move_to(host));
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return set_up(socket.get(), kDevice, false);
  });
}

void Cable::carry() {
  while (!is_stopping_.load()) {
    TimePoint next = real_clock().now() + kPollMax;
    for (const auto& frames : on_the_way_)
      if (!frames.empty()) next = std::min(next, frames.front().due);
    std::array<pollfd, 2> polled{};
    for (size_t i = 0; i < 2; ++i)
      polled[i] = {.fd = hosts_[i].device.get(), .events = POLLIN, .revents = 0};
    const auto left = std::max<Duration>(next - real_clock().now(), Duration{0});
    const timespec timeout{.tv_sec = 0, .tv_nsec = left.count()};
    ppoll(polled.data(), polled.size(), &timeout, nullptr);
    for (int i = 0; i < 2; ++i) {
      receive(i);
      deliver(i);
    }
  }
}

void Cable::receive(int from) {
  constexpr int kBurst = 64;
  std::array<char, 65536> buffer;
  for (int i = 0; i < kBurst; ++i) {
    const ssize_t count = read(hosts_[from].device.get(), buffer.data(), buffer.size());
    if (count <= 0) return;
    std::deque<Frame>& frames = on_the_way_[from];
    if (is_cut_.load() || frames.size() >= kFramesMax) continue;
    TimePoint due = real_clock().now() + Duration(delay_ns_.load());
    if (!frames.empty()) due = std::max(due, frames.back().due);  // a cable keeps the order
    frames.push_back({due, {buffer.data(), buffer.data() + count}});
  }
}

void Cable::deliver(int from) {
  std::deque<Frame>& frames = on_the_way_[from];
  if (is_cut_.load()) frames.clear();
  while (!frames.empty() && frames.front().due <= real_clock().now()) {
    const std::vector<char>& bytes = frames.front().bytes;
    // Fails when the device is down: the frame is lost, as it should be.
    [[maybe_unused]] const ssize_t written =
        write(hosts_[1 - from].device.get(), bytes.data(), bytes.size());
    frames.pop_front();
  }
}

}  // namespace wideep
