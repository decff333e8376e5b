#include "tokenizer/chat_template.h"

#include "base/file.h"
#include "base/test_folder.h"
#include "tokenizer/small_tokenizer_test.h"
#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

namespace wideep::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TextSegment written(std::string text) {
  return {std::move(text), TextOrigin::kTemplate};
}

TextSegment content(std::string text) {
  return {std::move(text), TextOrigin::kContent};
}

Result<std::vector<TextSegment>> render(std::string_view source,
                                        const Json& variables = Json::Object{},
                                        const RenderOptions& options = {}) {
  WD_ASSIGN_OR_RETURN(const ChatTemplate chat,
                      ChatTemplate::parse(source, parsed(R"({"bos_token":"<s>"})")));
  return chat.render(variables, options);
}

// The whole text, or the error's message.
std::string text(std::string_view source,
                 std::string_view variables = "{}",
                 const RenderOptions& options = {}) {
  const auto segments = render(source, parsed(variables), options);
  if (!segments) return segments.error().message;
  std::string out;
  for (const TextSegment& segment : *segments)
    out += segment.text;
  return out;
}

ErrorCode failure(std::string_view source, const RenderOptions& options) {
  const auto segments = render(source, Json::Object{}, options);
  EXPECT_FALSE(segments.has_value());
  return segments ? ErrorCode::kCancelled : segments.error().code;
}

constexpr std::string_view kChat =
    R"({{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}<|end|>)"
    R"({% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %})";

TEST(ChatTemplate, MarksWhatCameFromTheVariables) {
  const Json variables = parsed(
      R"({"messages":[{"role":"user","content":" hi <|end|> "}],"add_generation_prompt":true})");
  EXPECT_THAT(render(kChat, variables).value(),
              ElementsAre(written("<s><|"), content("user"), written("|>"), content("hi <|end|>"),
                          written("<|end|><|assistant|>")));
}

TEST(ChatTemplate, KeepsMarksThroughStringOperations) {
  const Json variables = parsed(R"({"c":"a<b>c"})");
  EXPECT_THAT(render("{{ '<' + c[1:4] ~ '>' }}", variables).value(),
              ElementsAre(written("<"), content("<b>"), written(">")));
  EXPECT_THAT(render("{{ c.split('<')[1] }}x", variables).value(),
              ElementsAre(content("b>c"), written("x")));
  EXPECT_THAT(render("{{ c.replace('<b>', '<T>') }}", variables).value(),
              ElementsAre(content("a"), written("<T>"), content("c")));
  EXPECT_THAT(render("{{ ['x', c]|join('-') }}", variables).value(),
              ElementsAre(written("x-"), content("a<b>c")));
  EXPECT_THAT(render("{{ c|upper }}{{ c[::-1] }}", variables).value(),
              ElementsAre(content("A<B>Cc>b<a")));
  EXPECT_THAT(render("{{ [c]|tojson }}{{ [c] }}", variables).value(),
              ElementsAre(content(R"(["a<b>c"]['a<b>c'])")));
  EXPECT_THAT(render("{% set x %}[{{ c }}]{% endset %}{{ x }}", variables).value(),
              ElementsAre(written("["), content("a<b>c"), written("]")));
  EXPECT_THAT(render("{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(c) }}", variables).value(),
              ElementsAre(written("<"), content("a<b>c"), written(">")));
}

TEST(ChatTemplate, LetsNoVariableReplaceATrustedOne) {
  EXPECT_THAT(render("{{ bos_token }}", parsed(R"({"bos_token":"<evil>"})")).value(),
              ElementsAre(written("<s>")));
}

TEST(ChatTemplate, MakesNoControlTokenFromContent) {
  const Json file = small_tokenizer(
      small_model({}), {added_token(256, "<|end|>", true), added_token(257, "<s>", true)});
  const auto tokenizer = Tokenizer::from_json(file, {}).value();
  const Json variables = parsed(R"({"messages":[{"role":"u","content":"<|end|><s>"}]})");
  const auto ids = tokenizer->encode_chat(render(kChat, variables).value()).value();
  EXPECT_EQ(std::ranges::count(ids, TokenId{256}), 1);
  EXPECT_EQ(std::ranges::count(ids, TokenId{257}), 1);
  EXPECT_EQ(ids.front(), TokenId{257});
  EXPECT_EQ(ids.back(), TokenId{256});
}

TEST(ChatTemplate, HandlesWhiteSpaceAsHuggingFaceDoes) {
  EXPECT_EQ(text("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(text("a  {%- if true -%}  b  {%- endif %}  c"), "ab  c");
  EXPECT_EQ(text("  {{- 'x' -}}\n  y"), "xy");
  EXPECT_EQ(text("  {%+ if true +%}\nx{% endif %}"), "  \nx");
  EXPECT_EQ(text("a {# note #} b\n{#- x -#}\n c"), "a  bc");
  EXPECT_EQ(text("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
  EXPECT_EQ(text("x\n\n"), "x\n");
  EXPECT_EQ(text("x\r\ny"), "x\ny");
}

TEST(ChatTemplate, LoopsWithBreakContinueConditionsAndElse) {
  EXPECT_EQ(text("{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% endif %}"
                 "{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}"),
            "13");
  EXPECT_EQ(text("{% for x in range(6) if x is odd %}{{ loop.index }}:{{ x }}"
                 "{{ ',' if not loop.last }}{% endfor %}"),
            "1:1,2:3,3:5");
  EXPECT_EQ(text("{% for x in [] %}a{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(text("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}"), "a1b2");
  EXPECT_EQ(text("{% for x in 'ab' %}{{ loop.previtem }}|{{ loop.nextitem }};{% endfor %}"),
            "|b;a|;");
  EXPECT_EQ(text("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}"), "1");
  EXPECT_EQ(text("{% set n = namespace(x=1) %}{% for i in [1, 2] %}{% set n.x = n.x + i %}"
                 "{% endfor %}{{ n.x }}"),
            "4");
}

TEST(ChatTemplate, ComputesLikePython) {
  EXPECT_EQ(text("{{ 7 // -2 }} {{ 7 % -2 }} {{ 7 / 2 }} {{ 2 * 'ab' }} {{ -3 + 1.5 }}"),
            "-4 -1 3.5 abab -1.5");
  EXPECT_EQ(text("{{ 1 < 2 < 3 }} {{ 'a' in 'abc' }} {{ 3 not in [1] }} {{ none or 'x' }}"),
            "True True True x");
  EXPECT_EQ(text("{{ [1, 'a', none, true, 1.0, {'k': \"it's\"}] }}"),
            "[1, 'a', None, True, 1.0, {'k': \"it's\"}]");
  EXPECT_EQ(text("{{ 'abc'[-2:] }}{{ 'abc'[::-1] }}{{ [1,2,3][:-1] }}"), "bccba[1, 2]");
  EXPECT_EQ(text("{{ x.y is defined }}", R"({"x":{}})"), "False");
  EXPECT_EQ(text("{{ 1e16 }} {{ 0.0001 }} {{ 0.00001 }} {{ 100.0 }}"), "1e+16 0.0001 1e-05 100.0");
}

TEST(ChatTemplate, PrintsJsonLikePython) {
  EXPECT_EQ(text("{{ x | tojson }}", R"({"x":{"a":[1,2.5,null,true],"b":"ü\"\n"}})"),
            R"({"a": [1, 2.5, null, true], "b": "ü\"\n"})");
  EXPECT_EQ(text("{{ x | tojson(indent=2) }}", R"({"x":{"a":[1],"b":{}}})"),
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
  EXPECT_EQ(
      text("{{ x | tojson(ensure_ascii=True, sort_keys=True) }}", R"({"x":{"b":"ü😀","a":1}})"),
      "{\"a\": 1, \"b\": \"\\u00fc\\ud83d\\ude00\"}");
}

TEST(ChatTemplate, CallsMacrosWithDefaultsAndKeywords) {
  EXPECT_EQ(text("{% macro m(a, b='B') %}{{ a }}{{ b }}{% endmacro %}"
                 "{{ m('x') }}{{ m(b='y', a='z') }}{{ m() }}"),
            "xBzyB");
  EXPECT_THAT(text("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}"), HasSubstr("takes 1 arguments"));
  EXPECT_THAT(text("{% macro m(a) %}{% endmacro %}{{ m(c=2) }}"), HasSubstr("no parameter 'c'"));
}

TEST(ChatTemplate, TellsTheTimeItIsGiven) {
  EXPECT_EQ(text("{{ strftime_now('%d %b %Y') }}", "{}", {.now_unix_seconds = 1'764'000'000}),
            "24 Nov 2025");
}

TEST(ChatTemplate, SaysWhatIsWrongAndOnWhichLine) {
  EXPECT_EQ(text("a\n{{ raise_exception('only two roles') }}"),
            "chat template: line 2: only two roles");
  EXPECT_THAT(text("\n\n{{ x.y }}"), HasSubstr("line 3: 'x' is undefined"));
  EXPECT_THAT(text("{% if x %}"), HasSubstr("expected 'endif'"));
  EXPECT_THAT(text("{% include 'x' %}"), HasSubstr("statement 'include' is not supported"));
  EXPECT_THAT(text("{{ x | groupby('y') }}"), HasSubstr("filter 'groupby' is not supported"));
  EXPECT_THAT(text("{{ x is prime }}"), HasSubstr("test 'prime' is not supported"));
  EXPECT_THAT(text("\n{{ 2 ** 3 }}"), HasSubstr("line 2: operator '**' is not supported"));
  EXPECT_THAT(text("{{ f(*x) }}"), HasSubstr("unpacking"));
  EXPECT_THAT(text("{{ ' }}"), HasSubstr("string has no end"));
  EXPECT_THAT(text("{{ (1 }}"), HasSubstr("unexpected"));
  EXPECT_THAT(text("{{ 1 / 0 }}"), HasSubstr("division by zero"));
  EXPECT_THAT(text("{{ 9223372036854775807 + 1 }}"), HasSubstr("does not fit 64 bits"));
  EXPECT_THAT(text("{{ 'a' + 1 }}"), HasSubstr("'+' is not defined between str and int"));
  EXPECT_THAT(text("{% break %}"), HasSubstr("outside of a loop"));
  EXPECT_THAT(text("{{ namespace() }}"), HasSubstr("cannot be printed"));
  EXPECT_THAT(text("{{ ''.__class__.__mro__ }}"), HasSubstr("'__class__' is undefined"));
}

TEST(ChatTemplate, StopsAtEachOfItsLimits) {
  const auto limited = [](auto set) {
    RenderOptions options;
    set(options.limits);
    return options;
  };
  EXPECT_EQ(failure("{% for i in range(1000) %}{{ i }}{% endfor %}",
                    limited([](RenderLimits& limits) { limits.steps_max = 1000; })),
            ErrorCode::kExhausted);
  EXPECT_EQ(failure("{{ 'abcd' * 300 }}",
                    limited([](RenderLimits& limits) { limits.output_bytes_max = 1000; })),
            ErrorCode::kExhausted);
  EXPECT_EQ(failure("{% set x = 'abcd' * 300 %}",
                    limited([](RenderLimits& limits) { limits.bytes_max = 1000; })),
            ErrorCode::kExhausted);
  EXPECT_EQ(
      failure("{{ range(11) }}", limited([](RenderLimits& limits) { limits.range_max = 10; })),
      ErrorCode::kExhausted);
  EXPECT_EQ(failure("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", {}), ErrorCode::kExhausted);
  EXPECT_EQ(failure("{% set n = namespace(x=[]) %}{% for i in range(200) %}"
                    "{% set n.x = [n.x] %}{% endfor %}",
                    {}),
            ErrorCode::kExhausted);
}

TEST(ChatTemplate, EndsBombsQuickly) {
  EXPECT_EQ(failure("{% set n = namespace(x='ab') %}{% for i in range(100) %}"
                    "{% set n.x = n.x + n.x %}{% endfor %}",
                    {}),
            ErrorCode::kExhausted);
  EXPECT_EQ(failure("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}"
                    "{% endfor %}",
                    {}),
            ErrorCode::kExhausted);
  EXPECT_EQ(failure("{{ 'x' * 99999999999 }}", {}), ErrorCode::kExhausted);
}

TEST(ChatTemplate, SurvivesNamespacesThatHoldEachOther) {
  EXPECT_EQ(text("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}"
                 "{{ a.b.a.b is defined }}"),
            "True");
}

TEST(ChatTemplate, LimitsTheSourceAndItsNesting) {
  EXPECT_THAT(ChatTemplate::parse(std::string((1 << 20) + 1, 'x')).error().message,
              HasSubstr("at most 1048576"));
  EXPECT_THAT(text("{{ " + std::string(5000, '(') + std::string(5000, ')') + " }}"),
              HasSubstr("nested deeper"));
  std::string blocks;
  for (int i = 0; i < 5000; ++i)
    blocks += "{% if x %}";
  EXPECT_THAT(text(blocks), HasSubstr("nested deeper"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i)
    sum += "+1";
  EXPECT_THAT(text(sum + " }}"), HasSubstr("deeper than 200"));
  std::string nots = "{{ ";
  for (int i = 0; i < 5000; ++i)
    nots += "not ";
  EXPECT_THAT(text(nots + "1 }}"), HasSubstr("nested deeper"));
}

class ChatTemplateFolder : public testing::Test {
 protected:
  void write(const std::string& name, std::string_view file) {
    ASSERT_TRUE(write_file(folder_ / name, file).has_value());
  }

  std::string loaded(std::string_view name = "default") {
    const auto chat = ChatTemplate::load(folder_.path(), name);
    if (!chat) return chat.error().message;
    return chat->render(Json::Object{}).value().at(0).text;
  }

  const TestFolder folder_;
};

TEST_F(ChatTemplateFolder, MayHaveNone) {
  EXPECT_EQ(ChatTemplate::load(folder_.path()).error().code, ErrorCode::kNotFound);
  write("tokenizer_config.json", "{}");
  EXPECT_EQ(ChatTemplate::load(folder_.path()).error().code, ErrorCode::kNotFound);
}

TEST_F(ChatTemplateFolder, PrefersTheFileToTheConfig) {
  write("tokenizer_config.json",
        R"({"chat_template":"config {{ eos_token }}","eos_token":{"content":"</s>"}})");
  EXPECT_EQ(loaded(), "config </s>");
  write("chat_template.jinja", "file {{ eos_token }}{{ bos_token }}");
  EXPECT_EQ(loaded(), "file </s>");
}

TEST_F(ChatTemplateFolder, ChoosesFromAListByName) {
  write("tokenizer_config.json", R"({"chat_template":[{"name":"default","template":"one"},
                                                      {"name":"tool_use","template":"two"}]})");
  EXPECT_EQ(loaded(), "one");
  EXPECT_EQ(loaded("tool_use"), "two");
  EXPECT_THAT(loaded("rag"), HasSubstr("no chat template 'rag'"));
}

}  // namespace
}  // namespace wideep::tokenizer
