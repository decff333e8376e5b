// Filters, tests, methods, printing and arithmetic, one expression at a time.
#include "tokenizer/chat_template.h"
#include "tokenizer/small_tokenizer_test.h"
#include "tokenizer/template_arithmetic.h"
#include "tokenizer/template_cursor.h"
#include "tokenizer/template_expression_parser.h"
#include "tokenizer/template_filters.h"
#include "tokenizer/template_functions.h"
#include "tokenizer/template_interpreter.h"
#include "tokenizer/template_lexer.h"
#include "tokenizer/template_parser.h"
#include "tokenizer/template_print.h"
#include "tokenizer/template_strings.h"
#include "tokenizer/template_text.h"
#include "tokenizer/template_value.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace wideep::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What {{ expression }} prints.
std::string value(std::string_view expression, std::string_view variables = "{}") {
  const auto chat = ChatTemplate::parse("{{ " + std::string(expression) + " }}");
  if (!chat) return chat.error().message;
  const auto segments = chat->render(parsed(variables));
  if (!segments) return segments.error().message;
  std::string out;
  for (const TextSegment& segment : *segments)
    out += segment.text;
  return out;
}

TEST(Filters, ChangeText) {
  EXPECT_EQ(value("' a b '|trim"), "a b");
  EXPECT_EQ(value("'xax'|trim('x')"), "a");
  EXPECT_EQ(value("'hello-big world'|title"), "Hello-Big World");
  EXPECT_EQ(value("'hELLO'|capitalize"), "Hello");
  EXPECT_EQ(value("'straße'|upper ~ 'ÄB'|lower"), "STRASSEäb");
  EXPECT_EQ(value("'aaa'|replace('a', 'b', 2)"), "bba");
  EXPECT_EQ(value("'<a&\"b\">'|e"), "&lt;a&amp;&#34;b&#34;&gt;");
  EXPECT_EQ(value("'a\\nb\\n\\nc'|indent(2)"), "a\n  b\n\n  c");
  EXPECT_EQ(value("'a\\nb'|indent(first=true)"), "    a\n    b");
  EXPECT_EQ(value("12|string + 'x'"), "12x");
  EXPECT_EQ(value("'abc'|reverse"), "cba");
}

TEST(Filters, ChangeLists) {
  EXPECT_EQ(value("[1,2,3]|join('-')"), "1-2-3");
  EXPECT_EQ(value("[{'a': 1}, {'a': 2}]|join(', ', attribute='a')"), "1, 2");
  EXPECT_EQ(value("[3,1,2]|sort"), "[1, 2, 3]");
  EXPECT_EQ(value("['b','A','c']|sort(reverse=true)"), "['c', 'b', 'A']");
  EXPECT_EQ(value("[{'a': 2}, {'a': 1}]|sort(attribute='a')|map(attribute='a')|list"), "[1, 2]");
  EXPECT_EQ(value("['a','A','b']|unique|list"), "['a', 'b']");
  EXPECT_EQ(value("[1,2,3,4]|select('even')|list"), "[2, 4]");
  EXPECT_EQ(value("[0,1,'']|reject|list"), "[0, '']");
  EXPECT_EQ(value("[{'r': 'u'}, {'r': 'a'}]|selectattr('r', 'equalto', 'u')|list"), "[{'r': 'u'}]");
  EXPECT_EQ(value("[{'r': 'u'}, {'x': 'a'}]|rejectattr('r', 'defined')|list"), "[{'x': 'a'}]");
  EXPECT_EQ(value("['a','b']|map('upper')|join"), "AB");
  EXPECT_EQ(value("[{'a': {'b': [7]}}]|map(attribute='a.b.0')|first"), "7");
  EXPECT_EQ(value("{'b': 1, 'a': 2}|dictsort"), "[('a', 2), ('b', 1)]");
  EXPECT_EQ(value("{'b': 1, 'a': 2}|dictsort(by='value')"), "[('b', 1), ('a', 2)]");
  EXPECT_EQ(value("{'b': 1}|items|list"), "[('b', 1)]");
  EXPECT_EQ(value("[1,2]|first ~ [1,2]|last ~ []|first"), "12");
  EXPECT_EQ(value("[1,5,3]|max ~ [4,2]|min"), "52");
  EXPECT_EQ(value("'äbc'|length ~ [1]|count"), "31");
}

TEST(Filters, ConvertAndFillIn) {
  EXPECT_EQ(value("'12'|int + '3.9'|int + 'x'|int(5)"), "20");
  EXPECT_EQ(value("'1.5'|float + 'x'|float"), "1.5");
  EXPECT_EQ(value("-3|abs"), "3");  // a sign binds tighter than a filter
  EXPECT_EQ(value("x|default('d') ~ ''|default('e') ~ ''|default('f', true)"), "df");
  EXPECT_THAT(value("3|length"), HasSubstr("length: int has no length"));
  EXPECT_THAT(value("'x'|trim(1, 2)"), HasSubstr("takes at most 1 arguments"));
  EXPECT_THAT(value("'x'|trim(sides=1)"), HasSubstr("has no argument 'sides'"));
}

TEST(Tests, KnowKinds) {
  EXPECT_EQ(value("['' is string, {} is mapping, [] is iterable, 1 is number, true is boolean]"),
            "[True, True, True, True, True]");
  EXPECT_EQ(value("[x is defined, none is none, 1 is integer, true is integer, 1.0 is float]"),
            "[False, True, True, False, True]");
  EXPECT_EQ(value("[true is true, 1 is true, false is false, {} is sequence, 1 is sequence]"),
            "[True, False, True, True, False]");
  EXPECT_EQ(value("[3 is odd, 3 is even, 9 is divisibleby 3, 2 is in [1, 2], 'a' is upper]"),
            "[True, False, True, True, False]");
  EXPECT_EQ(value("[1 is eq 1, 1 is ne 1, 1 is lt 2, 2 is ge(3), x is not defined]"),
            "[True, False, True, False, True]");
  EXPECT_THAT(value("1 is divisibleby 0"), HasSubstr("division by zero"));
  EXPECT_THAT(value("1 is eq"), HasSubstr("needs an argument"));
}

TEST(Methods, WorkOnStrings) {
  EXPECT_EQ(value("'a,b,c'.split(',', 1)"), "['a', 'b,c']");
  EXPECT_EQ(value("' a  b c '.split()"), "['a', 'b', 'c']");
  EXPECT_EQ(value("' a  b c '.split(none, 1)"), "['a', 'b c ']");
  EXPECT_EQ(value("' a b c '.rsplit(none, 1) + 'a,b,c'.rsplit(',', 1)"),
            "[' a b', 'c', 'a,b', 'c']");
  EXPECT_EQ(value("'a\\r\\nb\\n'.splitlines()"), "['a', 'b']");
  EXPECT_EQ(value("'xxaxx'.strip('x') ~ ' b'.lstrip() ~ 'c '.rstrip()"), "abc");
  EXPECT_EQ(value("['ab'.startswith('a'), 'ab'.startswith(('x', 'a')), 'ab'.endswith('a')]"),
            "[True, True, False]");
  EXPECT_EQ(value("'aXbX'.replace('X', '-') ~ 'ab'.replace('', '.')"), "a-b-.a.b.");
  EXPECT_EQ(value("'they are'.title() ~ 'AB'.lower() ~ 'ab'.upper() ~ 'aB'.capitalize()"),
            "They AreabABAb");
  EXPECT_EQ(value("['äbcb'.find('b'), 'äbcb'.rfind('b'), 'a'.find('z'), 'aaa'.count('a')]"),
            "[1, 3, -1, 3]");
  EXPECT_EQ(value("', '.join(['a', 'b']) ~ 'abc'.removeprefix('a').removesuffix('c')"), "a, bb");
  EXPECT_EQ(value("['12'.isdigit(), 'ab'.isalpha(), ' '.isspace(), ''.isdigit()]"),
            "[True, True, True, False]");
  EXPECT_THAT(value("'a'.split('')"), HasSubstr("split: sep is empty"));
  EXPECT_THAT(value("'a'.format(1)"), HasSubstr("'format' is undefined"));
}

TEST(Methods, WorkOnDicts) {
  EXPECT_EQ(value("{'a': 1}.get('a') ~ {}.get('b', 'x') ~ {}.get('b')"), "1xNone");
  EXPECT_EQ(value("{'a': 1}.keys()|list ~ {'a': 1}.values()|list"), "['a'][1]");
  // A key hides nothing that is asked for with a dot, and everything that is asked for by [].
  EXPECT_EQ(value("{'items': 1}['items']"), "1");
  EXPECT_EQ(value("{'items': 1}.items()|list"), "[('items', 1)]");
}

TEST(Values, SliceLikePython) {
  EXPECT_EQ(value("'abcdef'[1:5:2] ~ 'abcdef'[-100:2] ~ 'abc'[2:1] ~ 'abc'[5:]"), "bdab");
  EXPECT_EQ(value("[1,2,3,4][::-2] ~ [1,2,3][-1:-4:-1] ~ 'añb'[1]"), "[4, 2][3, 2, 1]ñ");
  EXPECT_EQ(value("'abc'[-1] ~ 'abc'[9] ~ [1][-2]"), "c");
  EXPECT_THAT(value("'abc'[::0]"), HasSubstr("step cannot be 0"));
  EXPECT_THAT(value("'abc'['a':]"), HasSubstr("a slice needs ints"));
}

TEST(Values, CompareLikePython) {
  EXPECT_EQ(value("[1 == 1.0, true == 1, 'a' < 'b', [1, 2] < [1, 3], (1,) == [1], {} == {}]"),
            "[True, True, True, True, False, True]");
  EXPECT_EQ(value("{'a': 1, 'b': 2} == {'b': 2, 'a': 1}"), "True");
  EXPECT_THAT(value("1 < 'a'"), HasSubstr("'<' is not defined between int and str"));
  EXPECT_THAT(value("1 in 'a'"), HasSubstr("needs a str"));
}

TEST(Values, PrintStringsAsReprDoes) {
  EXPECT_EQ(value("[x]", R"({"x":"a'b"})"), R"(["a'b"])");
  EXPECT_EQ(value("[x]", R"({"x":"a'b\"c"})"), R"(['a\'b"c'])");
  EXPECT_EQ(value("[x]", R"({"x":"\n\u0001\u200b\ud83d\ude00é"})"), "['\\n\\x01\\u200b😀é']");
  EXPECT_EQ(value("(1,)"), "(1,)");
}

TEST(Values, FormatFloatsAsReprDoes) {
  EXPECT_EQ(python_float(0.1), "0.1");
  EXPECT_EQ(python_float(-2), "-2.0");
  EXPECT_EQ(python_float(1e22), "1e+22");
  EXPECT_EQ(python_float(123456789012345680.0), "1.2345678901234568e+17");
  EXPECT_EQ(python_float(std::numeric_limits<double>::infinity()), "inf");
}

TEST(Lexer, ReadsNumbersStringsAndNames) {
  EXPECT_EQ(value("1_000 + 0.5e1"), "1005.0");
  EXPECT_EQ(value(R"('\x41\u00e9\U0001F600\n\q\'' "b")"), "Aé😀\n\\q'b");
  EXPECT_EQ(value("[[1, 2], 3].0.1"), "2");
  EXPECT_THAT(value("'\\ud800'"), HasSubstr("names no character"));
  EXPECT_THAT(value("99999999999999999999"), HasSubstr("out of range"));
  EXPECT_THAT(value("a ? b"), HasSubstr("unexpected '?'"));
  EXPECT_EQ(lex_template("\xFF").error().message, "template is not valid UTF-8");
}

TEST(Text, RemembersTheOriginOfEachByte) {
  Text text("ab", TextOrigin::kTemplate);
  text.append("cd", TextOrigin::kContent);
  text.append(text.substr(1, 2));
  EXPECT_THAT(
      text.segments(),
      ElementsAre(TextSegment{"ab", TextOrigin::kTemplate}, TextSegment{"cd", TextOrigin::kContent},
                  TextSegment{"b", TextOrigin::kTemplate}, TextSegment{"c", TextOrigin::kContent}));
  EXPECT_EQ(text.origin(), TextOrigin::kContent);
  EXPECT_TRUE(Text().segments().empty());
}

}  // namespace
}  // namespace wideep::tokenizer
