#include "net/lookup.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace wideep::net {
namespace {

using Callback = std::function<void(const HostAddresses&)>;

HostAddresses ask_resolver(const std::string& host) {
  const addrinfo hints{.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (code == EAI_NONAME || code == EAI_NODATA)
    return error(ErrorCode::kNotFound, "the name {} is not known", host);
  if (code != 0)
    return error(ErrorCode::kUnavailable, "looking up {}: {}", host, gai_strerror(code));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, &freeaddrinfo);
  std::vector<std::string> addresses;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(info->ai_addr, info->ai_addrlen, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0)
      continue;
    if (std::ranges::find(addresses, text.data()) == addresses.end())
      addresses.emplace_back(text.data());
  }
  if (addresses.empty()) return error(ErrorCode::kNotFound, "{} has no address", host);
  return addresses;
}

bool is_number(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  return inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ||
         inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

// The lookups under way, and who waits for each. Thread: any.
class Lookups {
 public:
  void add(const std::string& host, Callback done) {
    if (is_number(host)) return done(HostAddresses({host}));
    {
      const std::scoped_lock lock(mutex_);
      const auto under_way = waiting_.find(host);
      if (under_way != waiting_.end()) {
        under_way->second.push_back(std::move(done));
        return;
      }
      if (std::ssize(waiting_) < kLookupsMax) {
        waiting_[host].push_back(std::move(done));
        std::thread([this, host] { finish(host, ask_resolver(host)); }).detach();
        return;
      }
    }
    done(
        error(ErrorCode::kExhausted, "looking up {}: {} lookups are under way", host, kLookupsMax));
  }

 private:
  void finish(const std::string& host, const HostAddresses& addresses) {
    std::vector<Callback> callbacks;
    {
      const std::scoped_lock lock(mutex_);
      callbacks = std::move(waiting_.extract(host).mapped());
    }
    for (const Callback& done : callbacks)
      done(addresses);
  }

  std::mutex mutex_;
  std::map<std::string, std::vector<Callback>> waiting_;
};

// Never destroyed: a lookup may outlive main().
Lookups& lookups() {
  static auto& all = *std::make_unique<Lookups>().release();
  return all;
}

}  // namespace

HostAddresses look_up(const std::string& host, TimePoint deadline) {
  struct Answer {
    std::mutex mutex;
    std::condition_variable came;
    std::optional<HostAddresses> addresses;
  };

  // Shared with the lookup, which may come to its end after we have given up.
  const auto answer = std::make_shared<Answer>();
  lookups().add(host, [answer](const HostAddresses& addresses) {
    const std::scoped_lock lock(answer->mutex);
    answer->addresses = addresses;
    answer->came.notify_one();
  });
  std::unique_lock lock(answer->mutex);
  if (!answer->came.wait_until(lock, deadline, [&] { return answer->addresses.has_value(); }))
    return error(ErrorCode::kTimeout, "looking up {}: no answer", host);
  return *std::move(answer->addresses);
}

void start_lookup(EventLoop& loop, const std::string& host, Callback done) {
  lookups().add(host,
                [post = loop.poster(), done = std::move(done)](const HostAddresses& addresses) {
                  post([done, addresses] { done(addresses); });
                });
}

}  // namespace wideep::net
