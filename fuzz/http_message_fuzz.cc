// modules: http
// Bytes from the network into the server's and the client's parser. Whatever is accepted must be
// framed one way only: reading it in pieces gives what reading it whole gives, and where
// Boost.Beast takes the message too, it must see the same body.
#include "base/check.h"
#include "http/parser.h"
#include "http/target.h"

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

using namespace wideep::http;

constexpr ParserLimits kLimits{.line_bytes_max = 256,
                               .header_bytes_max = 1024,
                               .header_fields_max = 8,
                               .body_bytes_max = 4096};

struct Outcome {
  bool refused = false;
  size_t used = 0;
  std::string body;

  bool operator==(const Outcome&) const = default;
};

Outcome read_body(const Framing& framing, std::string_view input, size_t piece) {
  BodyDecoder decoder(framing, kLimits);
  Outcome outcome;
  while (outcome.used < input.size() && !decoder.done()) {
    const auto used = decoder.decode(input.substr(outcome.used, piece), outcome.body);
    if (!used) {
      outcome = {.refused = true, .used = 0, .body = {}};
      break;
    }
    WD_CHECK(*used > 0);
    outcome.used += *used;
  }
  WD_CHECK(static_cast<int64_t>(outcome.body.size()) <= kLimits.body_bytes_max);
  return outcome;
}

// Beast, if it takes a complete request at all (it refuses some values of connection), must read
// the same body and stop at the same byte.
void check_with_beast(std::string_view head, std::string_view rest, const Framing& framing) {
  BodyDecoder decoder(framing, kLimits);
  std::string body;
  const auto used = decoder.decode(rest, body);
  if (!used || !decoder.done()) return;
  namespace beast = boost::beast::http;
  beast::request_parser<beast::string_body> parser;
  parser.eager(true);
  parser.body_limit(kLimits.body_bytes_max);
  boost::system::error_code ec;
  const std::string message = std::string(head) + std::string(rest.substr(0, *used));
  size_t taken = 0;
  while (taken < message.size() && !parser.is_done() && !ec)
    taken += parser.put(boost::asio::buffer(message.data() + taken, message.size() - taken), ec);
  if (ec) return;
  WD_CHECK(parser.is_done());
  WD_CHECK(taken == message.size());
  WD_CHECK(parser.get().body() == body);
}

// The size of the head when it comes byte by byte: 0 unfinished, -1 refused.
int64_t scan_slowly(std::string_view input) {
  HeadScanner scanner(kLimits);
  for (size_t size = 1; size <= input.size(); ++size) {
    const auto end = scanner.scan(input.substr(0, size));
    if (!end) return -1;
    if (*end) return static_cast<int64_t>(**end);
  }
  return 0;
}

int64_t scan_at_once(std::string_view input) {
  const auto end = HeadScanner(kLimits).scan(input);
  if (!end) return -1;
  return *end ? static_cast<int64_t>(**end) : 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const int64_t head_size = scan_at_once(input);
  WD_CHECK(head_size == scan_slowly(input));
  if (head_size <= 0) return 0;
  const std::string_view head = input.substr(0, static_cast<size_t>(head_size));
  const std::string_view rest = input.substr(head.size());
  if (const auto request = parse_request_head(head, kLimits)) {
    WD_CHECK(request->framing.kind != Framing::Kind::kUntilClose);
    WD_CHECK(read_body(request->framing, rest, 1) ==
             read_body(request->framing, rest, rest.size() + 1));
    check_with_beast(head, rest, request->framing);
    if (const auto target = normalise_target(request->target)) {
      const auto again = normalise_target(encode_path(target->path));
      WD_CHECK(again.has_value());
      WD_CHECK(again->path == target->path);
    }
  }
  if (const auto response = parse_response_head(head, kLimits)) {
    WD_CHECK(read_body(response->framing, rest, 1) ==
             read_body(response->framing, rest, rest.size() + 1));
  }
  return 0;
}
