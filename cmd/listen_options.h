// The flags of everything that listens: where, for whom, how much.
#pragma once

#include "base/options.h"
#include "base/result.h"
#include "http/api_keys.h"
#include "http/client.h"
#include "http/server.h"
#include "net/address.h"

#include <chrono>
#include <string>
#include <vector>

namespace wideep::cmd {

struct ListenFlags {
  std::string host = "127.0.0.1";
  int64_t port = 0;
  std::string uds;
  std::vector<std::string> api_keys;
  std::string api_key_file;
  bool insecure = false;
  std::string ready_file;
  std::chrono::seconds shutdown_timeout{30};
  int64_t connections_max = 1024;
  int64_t body_bytes_max = 32 << 20;

  // `default_port` is the port if none is asked for.
  void declare(OptionSet& options, int64_t default_port);
  // Where to listen. kInvalidArgument: not a loopback address, no key, and no --insecure.
  Result<net::Address> address() const;

  Result<http::ApiKeys> keys() const { return http::ApiKeys::load(api_keys, api_key_file); }

  http::ServerLimits limits() const;
  // Of calls to those who stand behind: all clients may be passed on to one of them.
  http::ClientOptions calls() const;
};

// Where clients find what listens there: "http://127.0.0.1:8000", or "unix:/run/x.sock".
std::string url_of(const net::Address& bound);

}  // namespace wideep::cmd
