// HTTP/1.1 messages from bytes, without any socket: heads and bodies, strict, with limits.
//
// One framing per message or none: what two parsers could read differently (both content-length and
// transfer-encoding, repeated lengths, bare LF, folded lines, NUL) is refused, never repaired.
// Thread: plain values.
#pragma once

#include "http/message.h"

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

namespace wideep::http {

struct ParserLimits {
  int64_t line_bytes_max = 16 * 1024;    // one header line; the request line too
  int64_t header_bytes_max = 64 * 1024;  // the whole head, and the trailers of a chunked body
  int header_fields_max = 100;
  int64_t body_bytes_max = 32 * 1024 * 1024;
};

// Why a message is refused: the status to answer, and a sentence without any of the peer's bytes.
struct Refusal {
  int status = 400;
  std::string_view message;
};

template <typename T>
using Parsed = std::expected<T, Refusal>;

// How the end of a body is found.
struct Framing {
  enum class Kind { kNone, kLength, kChunked, kUntilClose };
  Kind kind = Kind::kNone;
  int64_t length = 0;  // for kLength
};

struct RequestHead {
  std::string method;
  std::string target;
  bool is_http_1_0 = false;
  Headers headers;
  Framing framing;
  bool keep_alive = true;  // what version and connection header ask for
  bool expects_continue = false;
};

struct ResponseHead {
  int status = 0;
  Headers headers;
  Framing framing;
  bool keep_alive = true;
};

// Finds the end of a head in input that grows. Looks at every byte once.
class HeadScanner {
 public:
  explicit HeadScanner(const ParserLimits& limits) : limits_(limits) {}

  // `input` starts with the head and is what the last call saw, plus more. The size of the head
  // with its empty line, or nothing yet.
  Parsed<std::optional<size_t>> scan(std::string_view input);

 private:
  ParserLimits limits_;
  size_t scanned_ = 0;
  size_t line_start_ = 0;
};

// `head` is what HeadScanner found, the empty line included.
Parsed<RequestHead> parse_request_head(std::string_view head, const ParserLimits& limits);
// A response to a HEAD request has no body whatever its headers say.
Parsed<ResponseHead> parse_response_head(std::string_view head,
                                         const ParserLimits& limits,
                                         bool answers_head = false);

// Takes a body out of its framing. Memory use does not depend on the chunks.
class BodyDecoder {
 public:
  // Refuses (413) a kLength beyond the limit at the first decode.
  BodyDecoder(const Framing& framing, const ParserLimits& limits);

  // Appends the body bytes of `input` to `out` and returns how many bytes of input are used up.
  // Stops at the end of the body.
  Parsed<size_t> decode(std::string_view input, std::string& out);

  bool done() const { return state_ == State::kDone; }

  // The peer has closed. Whether the body is complete.
  bool close();

  int64_t body_bytes() const { return body_bytes_; }

 private:
  enum class State {
    kData,       // kLength and kUntilClose
    kSize,       // "1f"
    kExtension,  // ";name=value" after the size, ignored
    kSizeLf,     // the LF after it
    kChunkData,
    kChunkCr,
    kChunkLf,
    kTrailer,  // lines after the last chunk, ignored
    kTrailerLf,
    kDone
  };
  Parsed<size_t> take_data(std::string_view input, std::string& out);
  Parsed<State> after_control_byte(char c);

  Framing framing_;
  ParserLimits limits_;
  State state_;
  int64_t left_ = 0;  // bytes of the body or chunk still to come
  int size_digits_ = 0;
  int64_t control_bytes_ = 0;  // of this chunk's extension, or of the trailers
  bool trailer_line_is_empty_ = true;
  int64_t body_bytes_ = 0;
};

}  // namespace wideep::http
