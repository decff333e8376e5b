// The small stages around BPE: normalizer and post-processor.
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/small_tokenizer_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string refusal_of(std::string_view post_processor) {
  const Json json = parsed(post_processor);
  const auto result = read_post_processor(&json, 10);
  return result ? "accepted" : result.error().message;
}

TEST(Normalizer, KnowsNothingNfcAndSequences) {
  EXPECT_EQ(read_normalizer(nullptr), Normalizer::kNone);
  const Json none;
  EXPECT_EQ(read_normalizer(&none), Normalizer::kNone);
  const Json empty = parsed(R"({"type":"Sequence","normalizers":[]})");
  EXPECT_EQ(read_normalizer(&empty), Normalizer::kNone);
  const Json nested = parsed(
      R"({"type":"Sequence","normalizers":[{"type":"Sequence","normalizers":[{"type":"NFC"}]}]})");
  EXPECT_EQ(read_normalizer(&nested), Normalizer::kNfc);
}

TEST(Normalizer, RefusesOthersAndDeepNesting) {
  const Json other = parsed(R"({"type":"NFKC"})");
  EXPECT_THAT(read_normalizer(&other).error().message, HasSubstr("'NFKC'"));
  std::string deep = R"({"type":"NFC"})";
  for (int i = 0; i < 6; ++i)
    deep = R"({"type":"Sequence","normalizers":[)" + deep + "]}";
  const Json nested = parsed(deep);
  EXPECT_THAT(read_normalizer(&nested).error().message, HasSubstr("nested too deep"));
}

TEST(PostProcessor, PutsTokensBeforeAndAfterTheText) {
  const Json json = parsed(R"({"type":"TemplateProcessing","single":[
      {"SpecialToken":{"id":"A"}},{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"B"}}],
      "special_tokens":{"A":{"ids":[1,2]},"B":{"ids":[3]}}})");
  const auto result = read_post_processor(&json, 10).value();
  EXPECT_THAT(result.prefix, ElementsAre(TokenId{1}, TokenId{2}));
  EXPECT_THAT(result.suffix, ElementsAre(TokenId{3}));
  EXPECT_FALSE(read_post_processor(nullptr, 10)->has_template);
}

TEST(PostProcessor, RefusesTemplatesThatLie) {
  EXPECT_THAT(refusal_of(R"({"type":"RobertaProcessing"})"), HasSubstr("'RobertaProcessing'"));
  EXPECT_THAT(refusal_of(R"({"type":"TemplateProcessing"})"), HasSubstr("without single"));
  EXPECT_THAT(refusal_of(R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"A"}}],
      "special_tokens":{"A":{"ids":[10]}}})"),
              HasSubstr("id 10 is not in the vocabulary"));
  EXPECT_THAT(refusal_of(R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"A"}}],
      "special_tokens":{}})"),
              HasSubstr("lacks 'A'"));
  EXPECT_THAT(refusal_of(R"({"type":"TemplateProcessing","single":[{"Sequence":{}},
      {"Sequence":{}}]})"),
              HasSubstr("twice"));
}

}  // namespace
}  // namespace wideep::tokenizer
