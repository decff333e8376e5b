// The small parts: message, field_list, target, router, sse.
#include "http/field_list.h"
#include "http/message.h"
#include "http/router.h"
#include "http/sse.h"
#include "http/target.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace wideep::http {
namespace {

TEST(Headers, CompareNamesWithoutCase) {
  Headers headers{{"Content-Type", "a"}, {"X", "1"}, {"x", "2"}};
  EXPECT_EQ(headers.get("content-type"), "a");
  EXPECT_EQ(headers.get("x"), "1");
  headers.set("X", "3");
  EXPECT_EQ(headers.size(), 2U);
  EXPECT_EQ(headers.get("x"), "3");
  EXPECT_EQ(headers.find("y"), nullptr);
}

TEST(Headers, ValuesCannotEndTheirLine) {
  std::string out;
  append_header_field(out, "a", "b\r\nSet-Cookie: c");
  EXPECT_EQ(out, "a: b  Set-Cookie: c\r\n");
}

TEST(FieldList, HasItsElementsWithoutBlanks) {
  std::string_view list = " a ,\tb\t,,c d";
  for (const char* element : {"a", "b", "", "c d"})
    EXPECT_EQ(take_element(list), element);
  EXPECT_TRUE(list.empty());
  EXPECT_TRUE(has_element("close,\tTE ", "te"));
  EXPECT_FALSE(has_element("close, te", "t"));
  EXPECT_FALSE(has_element("", "te"));
}

TEST(MediaType, ComesWithoutParameters) {
  EXPECT_EQ(media_type("application/json ; charset=utf-8"), "application/json");
  EXPECT_EQ(media_type(""), "");
}

std::string path_of(std::string_view target) {
  const auto normal = normalise_target(target);
  return normal ? normal->path : "error";
}

TEST(Target, SpellingsOfOnePathAreOnePath) {
  for (const std::string target : {"/v1/models", "//v1//models", "/v1/./models", "/v1/x/../models",
                                   "/v1%2Fmodels", "/%76%31/models", "http://host/v1/models",
                                   "https://user@host:80/v1/models?x=1", "/v1/models?a=/../b"}) {
    EXPECT_EQ(path_of(target), "/v1/models") << target;
  }
}

TEST(Target, KeepsWhatIsDifferent) {
  EXPECT_EQ(path_of("/"), "/");
  EXPECT_EQ(path_of("http://host"), "/");
  EXPECT_EQ(path_of("/V1/models"), "/V1/models");
  EXPECT_EQ(path_of("/v1/models/"), "/v1/models/");
  EXPECT_EQ(path_of("/v1/models/."), "/v1/models/");
  EXPECT_EQ(path_of("/a%252fb"), "/a%2fb");  // decoded once, not twice
  EXPECT_EQ(normalise_target("/a?b%2F=c?d")->query, "b%2F=c?d");
}

TEST(Target, RefusesWhatNobodyMeansWell) {
  for (const std::string target : {"", "v1", "*", "/..", "/a/../../b", "/%", "/%4", "/%zz", "/%00",
                                   "/a%0d%0ab", "/a#b", "/a?b#c", "/a%23", "/a\\b", "http://",
                                   "http:///x", "ftp://host/x", "host:80", "/%2e%2e/x"}) {
    EXPECT_EQ(path_of(target), "error") << target;
  }
}

TEST(Target, EncodesWhatItDecoded) {
  EXPECT_EQ(encode_path("/v1/models/a b%?\xC3\xA4"), "/v1/models/a%20b%25%3F%C3%A4");
  EXPECT_EQ(path_of(encode_path("/x y/%2f?")), "/x y/%2f?");
}

class RouterTest : public ::testing::Test {
 protected:
  void add(std::string method, std::string pattern) {
    router_.add({std::move(method), std::move(pattern), nullptr, {}});
  }

  std::string pattern_of(std::string_view method, std::string_view path) const {
    const Router::Match match = router_.find(method, path);
    return match.route == nullptr ? "none" : match.route->method + " " + match.route->pattern;
  }

  Router router_;
};

TEST_F(RouterTest, MatchesExactlyAndThenTheLongestPrefix) {
  add("GET", "/v1/models");
  add("GET", "/v1/models/*");
  add("*", "/*");
  EXPECT_EQ(pattern_of("GET", "/v1/models"), "GET /v1/models");
  EXPECT_EQ(pattern_of("GET", "/v1/models/a/b"), "GET /v1/models/*");
  EXPECT_EQ(router_.find("GET", "/v1/models/a/b").rest, "a/b");
  EXPECT_EQ(pattern_of("PUT", "/v1/model"), "* /*");
}

TEST_F(RouterTest, TellsTheMethodsOfAPath) {
  add("GET", "/a");
  add("POST", "/a");
  EXPECT_EQ(pattern_of("HEAD", "/a"), "GET /a");
  EXPECT_EQ(pattern_of("PUT", "/a"), "none");
  EXPECT_EQ(router_.find("PUT", "/a").allow, "GET, HEAD, POST");
  EXPECT_EQ(router_.find("PUT", "/b").allow, "");
}

// Feeds `text` in pieces and returns "type|data|id" for each event.
std::vector<std::string> events_of(const std::string& text, size_t piece) {
  std::vector<std::string> events;
  EventParser parser;
  for (size_t at = 0; at < text.size(); at += piece) {
    const Status status =
        parser.feed(std::string_view(text).substr(at, piece),
                    [&](const Event& e) { events.push_back(e.type + "|" + e.data + "|" + e.id); });
    EXPECT_TRUE(status);
  }
  return events;
}

TEST(EventParser, ReadsEventsHoweverTheyArrive) {
  const std::string text =
      "\xEF\xBB\xBF: comment\n\ndata: one\n\nevent: x\r\ndata:two\r\ndata:  three\r\nid: 7\r\n\r\n"
      "data\r\rretry: 5\nevent: lost\n\ndata: last\n\ndata: unfinished";
  const std::vector<std::string> expected = {"|one|", "x|two\n three|7", "||7", "|last|7"};
  for (size_t piece = 1; piece <= text.size(); ++piece)
    EXPECT_EQ(events_of(text, piece), expected) << piece;
}

TEST(EventParser, ReadsWhatIsWritten) {
  std::string text;
  append_event(text, "{\"a\":1}");
  append_event(text, "two\nlines");
  append_event(text, "");
  EXPECT_EQ(events_of(text, 1), (std::vector<std::string>{"|{\"a\":1}|", "|two\nlines|", "||"}));
}

TEST(EventParser, BoundsAnEvent) {
  EventParser parser(10);
  const auto ignore = [](const Event&) {};
  EXPECT_TRUE(parser.feed("data: abc\n", ignore));
  EXPECT_FALSE(parser.feed("data: abcdef\n", ignore));
}

}  // namespace
}  // namespace wideep::http
