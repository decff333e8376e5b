#include "cmd/listen_options.h"

namespace wideep::cmd {

void ListenFlags::declare(OptionSet& options, int64_t default_port) {
  port = default_port;
  options.add("--host", &host, {.group = "Server", .help = "Address to listen on."});
  options.add(
      "--port", &port,
      {.group = "Server", .help = "Port to listen on; 0: one that is free.", .max = UINT16_MAX});
  options.add("--uds", &uds,
              {.group = "Server",
               .help = "Listen on this Unix-domain socket instead.",
               .value_name = "PATH"});
  options.add(
      "--api-key", &api_keys,
      {.group = "Server",
       .help = "Key that clients must send as a bearer token. Repeat it for several; better "
               "in a file or the environment than on a command line."});
  options.add("--api-key-file", &api_key_file,
              {.group = "Server",
               .help = "Keys, one 'name key' a line, readable by the owner only.",
               .value_name = "FILE"});
  options.add("--insecure", &insecure,
              {.group = "Server", .help = "Listen on other than loopback addresses without keys."});
  options.add("--ready-file", &ready_file,
              {.group = "Server",
               .help = "Write the server's URL here once it is ready.",
               .value_name = "FILE"});
  options.add("--shutdown-timeout", &shutdown_timeout,
              {.group = "Server", .help = "How long SIGTERM waits for requests under way."});
  options.add(
      "--max-connections", &connections_max,
      {.group = "Server", .help = "One more is answered with 503.", .min = 1, .max = 1 << 20});
  options.add("--max-body-bytes", &body_bytes_max,
              {.group = "Server", .help = "Largest request body; more gets 413.", .min = 1});
}

Result<net::Address> ListenFlags::address() const {
  if (!uds.empty()) return net::Address::unix_socket(uds);
  net::Address address{.host = host, .port = static_cast<uint16_t>(port), .path = {}};
  if (!net::is_loopback(address) && api_keys.empty() && api_key_file.empty() && !insecure) {
    return invalid_argument(
        "--host {} can be reached from outside: give --api-key-file, or --insecure to let "
        "everybody in",
        host);
  }
  return address;
}

http::ServerLimits ListenFlags::limits() const {
  http::ServerLimits limits;
  limits.connections_max = static_cast<int>(connections_max);
  limits.parser.body_bytes_max = body_bytes_max;
  return limits;
}

http::ClientOptions ListenFlags::calls() const {
  constexpr int kOwn = 64;  // metrics, releases of KV
  http::ClientOptions client;
  client.connections_per_address_max = static_cast<int>(connections_max) + kOwn;
  return client;
}

std::string url_of(const net::Address& bound) {
  return (bound.is_unix() ? "" : "http://") + bound.to_string();
}

}  // namespace wideep::cmd
