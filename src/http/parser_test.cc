#include "http/parser.h"

#include <gtest/gtest.h>

#include <string>

namespace wideep::http {
namespace {

using Kind = Framing::Kind;

// Scans byte by byte, as the slowest network would bring it, then parses.
Parsed<RequestHead> parse(const std::string& text, const ParserLimits& limits = {}) {
  HeadScanner scanner(limits);
  for (size_t size = 1; size <= text.size(); ++size) {
    const auto end = scanner.scan(std::string_view(text).substr(0, size));
    if (!end) return std::unexpected(end.error());
    if (*end) {
      EXPECT_EQ(**end, size);
      return parse_request_head(std::string_view(text).substr(0, size), limits);
    }
  }
  return std::unexpected(Refusal{0, "incomplete"});
}

int refusal_of(const std::string& text, const ParserLimits& limits = {}) {
  const auto head = parse(text, limits);
  return head ? 200 : head.error().status;
}

TEST(RequestHead, ReadsMethodTargetAndFields) {
  const auto head = parse("POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length:  7 \r\nA:\r\n\r\n");
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->method, "POST");
  EXPECT_EQ(head->target, "/a?b");
  EXPECT_EQ(head->headers.get("HOST"), "x");
  EXPECT_EQ(head->headers.get("a"), "");
  EXPECT_EQ(head->framing.kind, Kind::kLength);
  EXPECT_EQ(head->framing.length, 7);
  EXPECT_TRUE(head->keep_alive);
}

TEST(RequestHead, KnowsWhenTheConnectionIsKept) {
  EXPECT_FALSE(parse("GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n")->keep_alive);
  EXPECT_FALSE(parse("GET / HTTP/1.0\r\n\r\n")->keep_alive);
  EXPECT_TRUE(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")->keep_alive);
}

TEST(RequestHead, RefusesEveryDoubtfulFraming) {
  const std::string start = "POST / HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(refusal_of(start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of(start + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of(start + "Content-Length: 5, 5\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of(start + "Content-Length: +5\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of(start + "Content-Length: 0x5\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of(start + "Content-Length:\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of(start + "Content-Length: 9999999999999999999\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of(start + "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501);
  EXPECT_EQ(refusal_of(start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"), 501);
  EXPECT_EQ(refusal_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

TEST(RequestHead, RefusesBadLines) {
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\nHost: x\n\n"), 400);              // bare LF
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\nHost: x\n\r\n"), 400);          // bare LF in a field
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n"), 400);  // bare CR
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"), 400);        // folded
  EXPECT_EQ(refusal_of(std::string("GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n", 30)), 400);  // NUL
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\nHost : x\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\nHost\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\n: x\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("GET /\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("GET  HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("G@T / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("GET /\xC3\xA4 HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("\x16\x03\x01\x02"), 400);  // TLS
  EXPECT_EQ(refusal_of("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
  EXPECT_EQ(refusal_of("GET / http/1.1\r\nHost: x\r\n\r\n"), 400);
}

TEST(RequestHead, WantsExactlyOneHost) {
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"), 400);
}

TEST(RequestHead, HitsEveryLimit) {
  const ParserLimits limits{.line_bytes_max = 64, .header_bytes_max = 200, .header_fields_max = 3};
  const std::string start = "GET / HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(refusal_of("GET /" + std::string(64, 'a'), limits), 414);
  EXPECT_EQ(refusal_of(start + "A: " + std::string(64, 'a'), limits), 431);
  EXPECT_EQ(refusal_of(start + "A: b\r\nC: d\r\n\r\n", limits), 200);
  EXPECT_EQ(refusal_of(start + "A: b\r\nC: d\r\nE: f\r\n\r\n", limits), 431);
  const std::string line = "A: " + std::string(50, 'a') + "\r\n";
  EXPECT_EQ(refusal_of(start + line + line + line + line, limits), 431);
}

TEST(RequestHead, KnowsOneExpectation) {
  EXPECT_TRUE(parse("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n\r\n")->expects_continue);
  EXPECT_EQ(refusal_of("GET / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n"), 417);
}

TEST(ResponseHead, ReadsStatusAndFraming) {
  const auto head = parse_response_head("HTTP/1.1 503 Busy now\r\nContent-Length: 3\r\n\r\n", {});
  ASSERT_TRUE(head);
  EXPECT_EQ(head->status, 503);
  EXPECT_EQ(head->framing.length, 3);
  const auto endless = parse_response_head("HTTP/1.1 200\r\n\r\n", {});
  ASSERT_TRUE(endless);
  EXPECT_EQ(endless->framing.kind, Kind::kUntilClose);
  EXPECT_FALSE(endless->keep_alive);
}

TEST(ResponseHead, HasNoBodyWhereThereIsNone) {
  const std::string length = "Content-Length: 3\r\n\r\n";
  EXPECT_EQ(parse_response_head("HTTP/1.1 204 x\r\n" + length, {})->framing.kind, Kind::kNone);
  EXPECT_EQ(parse_response_head("HTTP/1.1 304 x\r\n" + length, {})->framing.kind, Kind::kNone);
  EXPECT_EQ(parse_response_head("HTTP/1.1 100 x\r\n\r\n", {})->framing.kind, Kind::kNone);
  EXPECT_EQ(parse_response_head("HTTP/1.1 200 x\r\n" + length, {}, true)->framing.kind,
            Kind::kNone);
}

TEST(ResponseHead, RefusesBadStatusLines) {
  for (const std::string line : {"HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 2000 x", "HTTP/1.1 999 x",
                                 "HTTP/1.1  200", "ICY 200 OK", "HTTP/1.1 2x0 y"}) {
    EXPECT_FALSE(parse_response_head(line + "\r\n\r\n", {})) << line;
  }
}

// Decodes in pieces of `piece` bytes; what is left over is returned in `rest`.
Parsed<std::string> decode(const Framing& framing,
                           const std::string& input,
                           size_t piece,
                           const ParserLimits& limits = {}) {
  BodyDecoder decoder(framing, limits);
  std::string out;
  for (size_t at = 0; at < input.size() && !decoder.done();) {
    const auto used = decoder.decode(std::string_view(input).substr(at, piece), out);
    if (!used) return std::unexpected(used.error());
    at += *used;
  }
  if (!decoder.done()) return std::unexpected(Refusal{0, "incomplete"});
  return out;
}

const Framing kChunked{Kind::kChunked, 0};

TEST(BodyDecoder, TakesChunksApartHoweverTheyArrive) {
  const std::string body = "3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n";
  for (size_t piece = 1; piece <= body.size(); ++piece) {
    const auto decoded = decode(kChunked, body, piece);
    ASSERT_TRUE(decoded) << piece << decoded.error().message;
    EXPECT_EQ(*decoded, "abc0123456789");
  }
}

TEST(BodyDecoder, StopsAtTheEndOfTheBody) {
  BodyDecoder decoder({Kind::kLength, 3}, {});
  std::string out;
  EXPECT_EQ(decoder.decode("abcGET", out), 3U);
  EXPECT_EQ(out, "abc");
  EXPECT_TRUE(decoder.done());
  BodyDecoder chunked(kChunked, {});
  EXPECT_EQ(chunked.decode("0\r\n\r\nGET", out), 5U);
  EXPECT_TRUE(chunked.done());
}

TEST(BodyDecoder, RefusesMalformedChunks) {
  for (const std::string body :
       {"\r\n", "x\r\n", "3\nabc\r\n", "3\r\nabcd\r\n", "3\r\nabc\n0\r\n\r\n", "-1\r\n", " 3\r\n",
        "0x3\r\n", "1000000000000000\r\n", "3;a\nb\r\n", "0\r\nA: b\n\r\n"}) {
    const auto decoded = decode(kChunked, body, 100);
    ASSERT_FALSE(decoded) << body;
    EXPECT_NE(decoded.error().status, 0) << body;
  }
}

TEST(BodyDecoder, HitsItsLimits) {
  const ParserLimits limits{.line_bytes_max = 16, .header_bytes_max = 32, .body_bytes_max = 4};
  EXPECT_EQ(decode({Kind::kLength, 5}, "abcde", 9, limits).error().status, 413);
  EXPECT_EQ(decode(kChunked, "5\r\n", 9, limits).error().status, 413);
  EXPECT_EQ(decode(kChunked, "4\r\nabcd\r\n1\r\n", 9, limits).error().status, 413);
  EXPECT_EQ(decode(kChunked, "FFFFFFFFFFFFFFF\r\n", 9, limits).error().status, 413);
  EXPECT_EQ(decode(kChunked, "1;" + std::string(17, 'x'), 9, limits).error().status, 400);
  EXPECT_EQ(decode(kChunked, "0\r\n" + std::string(33, 'x'), 9, limits).error().status, 431);
  // Extensions that are small one by one but not together.
  EXPECT_EQ(decode(kChunked, "1;123456789\r\na\r\n1;123456789\r\n", 9, limits).error().status, 400);
}

TEST(BodyDecoder, EndsWithTheConnectionOnlyWhenThatIsTheFraming) {
  BodyDecoder endless({Kind::kUntilClose, 0}, {});
  std::string out;
  EXPECT_EQ(endless.decode("abc", out), 3U);
  EXPECT_TRUE(endless.close());
  BodyDecoder counted({Kind::kLength, 4}, {});
  EXPECT_EQ(counted.decode("abc", out), 3U);
  EXPECT_FALSE(counted.close());
}

}  // namespace
}  // namespace wideep::http
