#include "http/parser.h"

#include "http/field_list.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace wideep::http {
namespace {

constexpr size_t kMethodBytesMax = 32;
constexpr int kSizeDigitsMax = 15;    // of a chunk: below 2^60
constexpr int kLengthDigitsMax = 18;  // of content-length: below 10^18

std::unexpected<Refusal> refuse(int status, std::string_view message) {
  return std::unexpected(Refusal{status, message});
}

// The characters of methods and field names (RFC 9110 section 5.6.2).
constexpr std::array<bool, 256> kIsToken = [] {
  std::array<bool, 256> table{};
  for (const char c : std::string_view("!#$%&'*+-.^_`|~0123456789"
                                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
    table[static_cast<unsigned char>(c)] = true;
  }
  return table;
}();

bool is_token(std::string_view text) {
  return !text.empty() &&
         std::ranges::all_of(text, [](char c) { return kIsToken[static_cast<unsigned char>(c)]; });
}

// Takes "....\r\n" from the front. The scanner has seen that lines end so.
std::string_view take_line(std::string_view& head) {
  const size_t end = head.find("\r\n");
  const std::string_view line = head.substr(0, end);
  head.remove_prefix(std::min(line.size() + 2, head.size()));
  return line;
}

Parsed<Headers> parse_fields(std::string_view head, const ParserLimits& limits) {
  Headers headers;
  for (std::string_view line = take_line(head); !line.empty(); line = take_line(head)) {
    if (line[0] == ' ' || line[0] == '\t') return refuse(400, "A header line is folded.");
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
      return refuse(400, "A header line has no valid name.");
    }
    if (static_cast<int>(headers.size()) == limits.header_fields_max) {
      return refuse(431, "The request has too many header fields.");
    }
    headers.add(line.substr(0, colon), trim(line.substr(colon + 1)));
  }
  return headers;
}

struct FramingFields {
  int num_lengths = 0;
  int num_encodings = 0;
  int num_hosts = 0;
  std::string_view length;
  std::string_view encoding;
  bool says_close = false;
  bool says_keep_alive = false;
};

FramingFields collect_framing(const Headers& headers) {
  FramingFields fields;
  for (const Header& field : headers) {
    if (equal_ignoring_case(field.name, "content-length")) {
      ++fields.num_lengths;
      fields.length = field.value;
    } else if (equal_ignoring_case(field.name, "transfer-encoding")) {
      ++fields.num_encodings;
      fields.encoding = field.value;
    } else if (equal_ignoring_case(field.name, "host")) {
      ++fields.num_hosts;
    } else if (equal_ignoring_case(field.name, "connection")) {
      fields.says_close |= has_element(field.value, "close");
      fields.says_keep_alive |= has_element(field.value, "keep-alive");
    }
  }
  return fields;
}

Parsed<Framing> parse_framing(const FramingFields& fields, bool is_http_1_0) {
  if (fields.num_lengths > 0 && fields.num_encodings > 0) {
    return refuse(400, "Both content-length and transfer-encoding are given.");
  }
  if (fields.num_lengths > 1) return refuse(400, "The content-length is given twice.");
  if (fields.num_encodings > 0) {
    if (is_http_1_0) return refuse(400, "HTTP/1.0 has no transfer-encoding.");
    if (fields.num_encodings > 1 || !equal_ignoring_case(fields.encoding, "chunked")) {
      return refuse(501, "The only transfer-encoding known is chunked.");
    }
    return Framing{Framing::Kind::kChunked, 0};
  }
  if (fields.num_lengths == 0) return Framing{};
  const std::string_view text = fields.length;
  const bool is_number = !text.empty() && text.size() <= kLengthDigitsMax &&
                         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
  if (!is_number) return refuse(400, "The content-length is no valid number.");
  int64_t length = 0;
  std::from_chars(text.data(), text.data() + text.size(), length);
  return Framing{Framing::Kind::kLength, length};
}

// "HTTP/1.1" and "HTTP/1.0" say true and false.
Parsed<bool> parse_is_http_1_0(std::string_view version) {
  if (version == "HTTP/1.1") return false;
  if (version == "HTTP/1.0") return true;
  if (version.starts_with("HTTP/")) return refuse(505, "Only HTTP/1.1 and HTTP/1.0 are spoken.");
  return refuse(400, "The request line is not METHOD TARGET VERSION.");
}

}  // namespace

Parsed<std::optional<size_t>> HeadScanner::scan(std::string_view input) {
  for (; scanned_ < input.size(); ++scanned_) {
    const auto c = static_cast<unsigned char>(input[scanned_]);
    if (c == '\n') {
      if (scanned_ == 0 || input[scanned_ - 1] != '\r') {
        return refuse(400, "A line ends without CR.");
      }
      const bool is_empty = scanned_ - line_start_ == 1;
      line_start_ = scanned_ + 1;
      if (is_empty) return line_start_;
    } else if (scanned_ > 0 && input[scanned_ - 1] == '\r') {
      return refuse(400, "A CR stands without LF.");
    } else if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7F) {
      return refuse(400, "The head has a control character.");
    }
    if (static_cast<int64_t>(scanned_ - line_start_) >= limits_.line_bytes_max) {
      return refuse(line_start_ == 0 ? 414 : 431, "A line of the head is too long.");
    }
    if (static_cast<int64_t>(scanned_) >= limits_.header_bytes_max) {
      return refuse(431, "The head is too large.");
    }
  }
  return std::nullopt;
}

Parsed<RequestHead> parse_request_head(std::string_view head, const ParserLimits& limits) {
  const std::string_view line = take_line(head);
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    return refuse(400, "The request line is not METHOD TARGET VERSION.");
  }
  RequestHead request;
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, last - first - 1);
  if (!is_token(request.method) || request.method.size() > kMethodBytesMax) {
    return refuse(400, "The method is not valid.");
  }
  const bool target_is_visible =
      !request.target.empty() &&
      std::ranges::all_of(request.target, [](char c) { return c > 0x20 && c < 0x7F; });
  if (!target_is_visible) return refuse(400, "The target is not valid.");
  const auto is_http_1_0 = parse_is_http_1_0(line.substr(last + 1));
  if (!is_http_1_0) return std::unexpected(is_http_1_0.error());
  request.is_http_1_0 = *is_http_1_0;

  auto headers = parse_fields(head, limits);
  if (!headers) return std::unexpected(headers.error());
  request.headers = *std::move(headers);
  const FramingFields fields = collect_framing(request.headers);
  if (fields.num_hosts > 1 || (fields.num_hosts == 0 && !request.is_http_1_0)) {
    return refuse(400, "There must be exactly one host header.");
  }
  const auto framing = parse_framing(fields, request.is_http_1_0);
  if (!framing) return std::unexpected(framing.error());
  request.framing = *framing;
  request.keep_alive = !fields.says_close && (!request.is_http_1_0 || fields.says_keep_alive);
  if (const std::string* expect = request.headers.find("expect")) {
    if (!equal_ignoring_case(*expect, "100-continue")) {
      return refuse(417, "The only expectation known is 100-continue.");
    }
    request.expects_continue = true;
  }
  return request;
}

Parsed<ResponseHead> parse_response_head(std::string_view head,
                                         const ParserLimits& limits,
                                         bool answers_head) {
  const std::string_view line = take_line(head);
  const auto is_http_1_0 = parse_is_http_1_0(line.substr(0, 8));
  if (!is_http_1_0) return std::unexpected(is_http_1_0.error());
  ResponseHead response;
  const std::string_view status = line.size() >= 12 ? line.substr(9, 3) : std::string_view();
  std::from_chars(status.data(), status.data() + status.size(), response.status);
  const bool is_status_line = line.size() >= 12 && line[8] == ' ' &&
                              (line.size() == 12 || line[12] == ' ') && response.status >= 100 &&
                              response.status <= 599;
  if (!is_status_line) return refuse(502, "The status line is not VERSION STATUS REASON.");

  auto headers = parse_fields(head, limits);
  if (!headers) return std::unexpected(headers.error());
  response.headers = *std::move(headers);
  const FramingFields fields = collect_framing(response.headers);
  const auto framing = parse_framing(fields, *is_http_1_0);
  if (!framing) return std::unexpected(framing.error());
  response.framing = *framing;
  response.keep_alive = !fields.says_close && (!*is_http_1_0 || fields.says_keep_alive);
  const bool has_no_body =
      answers_head || response.status < 200 || response.status == 204 || response.status == 304;
  if (has_no_body) {
    response.framing = Framing{};
  } else if (fields.num_lengths + fields.num_encodings == 0) {
    response.framing = Framing{Framing::Kind::kUntilClose, 0};
    response.keep_alive = false;
  }
  return response;
}

BodyDecoder::BodyDecoder(const Framing& framing, const ParserLimits& limits)
    : framing_(framing), limits_(limits), state_(State::kDone) {
  if (framing.kind == Framing::Kind::kChunked) {
    state_ = State::kSize;
  } else if (framing.kind == Framing::Kind::kUntilClose) {
    state_ = State::kData;
    left_ = INT64_MAX;
  } else if (framing.length > 0) {
    state_ = State::kData;
    left_ = framing.length;
  }
}

Parsed<size_t> BodyDecoder::decode(std::string_view input, std::string& out) {
  if (framing_.length > limits_.body_bytes_max) return refuse(413, "The body is too large.");
  size_t used = 0;
  while (used < input.size() && state_ != State::kDone) {
    if (state_ == State::kData || state_ == State::kChunkData) {
      const auto taken = take_data(input.substr(used), out);
      if (!taken) return taken;
      used += *taken;
    } else {
      const auto next = after_control_byte(input[used]);
      if (!next) return std::unexpected(next.error());
      state_ = *next;
      ++used;
    }
  }
  return used;
}

bool BodyDecoder::close() {
  if (framing_.kind == Framing::Kind::kUntilClose) state_ = State::kDone;
  return done();
}

Parsed<size_t> BodyDecoder::take_data(std::string_view input, std::string& out) {
  const int64_t taken = std::min(left_, static_cast<int64_t>(input.size()));
  if (body_bytes_ + taken > limits_.body_bytes_max) return refuse(413, "The body is too large.");
  out.append(input.substr(0, static_cast<size_t>(taken)));
  body_bytes_ += taken;
  left_ -= taken;
  if (left_ == 0) state_ = state_ == State::kData ? State::kDone : State::kChunkCr;
  return static_cast<size_t>(taken);
}

// One byte of what stands around the data of chunks.
Parsed<BodyDecoder::State> BodyDecoder::after_control_byte(char c) {
  const auto bad_chunk = [] { return refuse(400, "The chunked body is malformed."); };
  switch (state_) {
    case State::kSize: {
      int digit = -1;
      std::from_chars(&c, &c + 1, digit, 16);
      if (digit >= 0) {
        if (++size_digits_ > kSizeDigitsMax) return bad_chunk();
        left_ = left_ * 16 + digit;
        return State::kSize;
      }
      if (size_digits_ == 0) return bad_chunk();
      if (body_bytes_ + left_ > limits_.body_bytes_max) {
        return refuse(413, "The body is too large.");
      }
      if (c == '\r') return State::kSizeLf;
      if (c == ';') return State::kExtension;
      return bad_chunk();
    }
    case State::kExtension:
      if (c == '\r') return State::kSizeLf;
      // Extensions of all chunks together share one allowance: they carry nothing for us.
      if (c == '\n' || c == '\0' || ++control_bytes_ > limits_.line_bytes_max) return bad_chunk();
      return State::kExtension;
    case State::kSizeLf:
      if (c != '\n') return bad_chunk();
      size_digits_ = 0;
      if (left_ > 0) return State::kChunkData;
      control_bytes_ = 0;
      return State::kTrailer;
    case State::kChunkCr:
      if (c != '\r') return bad_chunk();
      return State::kChunkLf;
    case State::kChunkLf:
      if (c != '\n') return bad_chunk();
      return State::kSize;
    case State::kTrailer:
      if (++control_bytes_ > limits_.header_bytes_max) {
        return refuse(431, "The trailers are too large.");
      }
      if (c == '\r') return State::kTrailerLf;
      if (c == '\n' || c == '\0') return bad_chunk();
      trailer_line_is_empty_ = false;
      return State::kTrailer;
    case State::kTrailerLf:
      if (c != '\n') return bad_chunk();
      if (trailer_line_is_empty_) return State::kDone;
      trailer_line_is_empty_ = true;
      return State::kTrailer;
    case State::kData:
    case State::kChunkData:
    case State::kDone:
      break;
  }
  return bad_chunk();
}

}  // namespace wideep::http
