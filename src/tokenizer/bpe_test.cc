#include "tokenizer/bpe.h"

#include "base/random.h"
#include "tokenizer/small_tokenizer_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace wideep::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Merges = std::vector<std::pair<std::string, std::string>>;

Bpe make(const Json& model) {
  return Bpe::from_json(model, {}).value();
}

std::vector<int> encode(const Bpe& bpe, std::string_view piece) {
  std::vector<TokenId> ids;
  bpe.encode(piece, ids);
  std::vector<int> out;
  for (const TokenId id : ids)
    out.push_back(index(id));
  return out;
}

std::string refusal(const Json& model, const BpeLimits& limits = {}) {
  const auto result = Bpe::from_json(model, {}, limits);
  return result ? "accepted" : result.error().message;
}

// The obvious way: again and again merge the leftmost pair of the lowest rank.
std::vector<std::string> reference_encode(const Merges& merges, std::string_view piece) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < merges.size(); ++i)
    ranks[merges[i]] = i;
  std::vector<std::string> symbols;
  for (const char c : piece)
    symbols.emplace_back(1, c);
  for (;;) {
    size_t best = SIZE_MAX;
    size_t best_rank = SIZE_MAX;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found != ranks.end() && found->second < best_rank) {
        best = i;
        best_rank = found->second;
      }
    }
    if (best == SIZE_MAX) return symbols;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

Merges random_merges(Random& random) {
  Merges merges;
  std::vector<std::string> tokens{"a", "b", "c"};
  while (merges.size() < 40) {
    const std::string left = tokens[random.below(tokens.size())];
    const std::string right = tokens[random.below(tokens.size())];
    merges.emplace_back(left, right);
    tokens.push_back(left + right);
  }
  return merges;
}

TEST(Bpe, EqualsTheObviousAlgorithmOnShortAndLongPieces) {
  Random random(20260101);
  for (int round = 0; round < 60; ++round) {
    const Merges merges = random_merges(random);
    const Bpe bpe = make(small_model(merges));
    for (const size_t size : {1, 2, 7, 63, 64, 65, 200}) {
      std::string piece;
      while (piece.size() < size)
        piece += static_cast<char>('a' + random.below(3));
      std::vector<std::string> tokens;
      for (const int id : encode(bpe, piece)) {
        tokens.emplace_back(bpe.vocabulary().bytes(TokenId{id}));
      }
      EXPECT_EQ(tokens, reference_encode(merges, piece)) << "round " << round << ": " << piece;
    }
  }
}

TEST(Bpe, TakesAWholePieceFromTheVocabularyOnlyIfMergesIgnoredOrReachIt) {
  Json model = small_model({{"a", "b"}, {"b", "c"}});
  model.find("vocab")->set("abc", 400);  // no merge makes it
  EXPECT_THAT(encode(make(model), "abc"), ElementsAre(256, 'c'));
  model.set("ignore_merges", true);
  EXPECT_THAT(encode(make(model), "abc"), ElementsAre(400));
  EXPECT_THAT(encode(make(model), "abcc"), ElementsAre(256, 'c', 'c'));
}

TEST(Bpe, ReadsBothEncodingsOfMerges) {
  Json model = small_model({{"a", "b"}});
  model.set("merges", parsed(R"([["a","b"]])"));
  EXPECT_THAT(encode(make(model), "ab"), ElementsAre(256));
}

TEST(Bpe, NeedsNoQuadraticTimeForAMillionEqualCharacters) {
  Merges merges;
  for (std::string token = "a"; token.size() < 64; token += token)
    merges.emplace_back(token, token);
  const Bpe bpe = make(small_model(merges));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(encode(bpe, std::string(1'000'000, 'a')).size(), 1'000'000U / 64);
  // A quadratic scan takes hours; this bound only has to tell the two apart on any machine.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Bpe, LeavesOutMergesToForbiddenTokens) {
  const Json model = small_model({{"a", "b"}, {"ab", "c"}});
  const std::vector<TokenId> never{TokenId{257}};
  const Bpe bpe = Bpe::from_json(model, never).value();
  EXPECT_THAT(encode(bpe, "abc"), ElementsAre(256, 'c'));
}

TEST(Bpe, RefusesModelsThatItWouldGetWrong) {
  const Json good = small_model({{"a", "b"}});
  const auto with = [&](std::string_view key, const Json& value) {
    Json model = good;
    model.set(key, value);
    return refusal(model);
  };
  EXPECT_EQ(refusal(good), "accepted");
  EXPECT_THAT(with("type", "WordPiece"), HasSubstr("WordPiece"));
  EXPECT_THAT(with("dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(with("byte_fallback", true), HasSubstr("byte_fallback"));
  EXPECT_THAT(with("end_of_word_suffix", "</w>"), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(with("merges", parsed(R"(["a z b"])")), HasSubstr("merge 0"));
  EXPECT_THAT(with("merges", parsed(R"(["a z"])")), HasSubstr("vocab lacks"));
  EXPECT_THAT(with("merges", parsed("[[1,2]]")), HasSubstr("merge 0"));
  EXPECT_THAT(with("merges", 3), HasSubstr("no merges"));
  EXPECT_THAT(with("vocab", parsed(R"({"a":0})")), HasSubstr("byte 0x00"));
  EXPECT_THAT(with("vocab", parsed(R"({"a":-1})")), HasSubstr("id -1"));
  EXPECT_THAT(with("vocab", parsed(R"({"a":1,"b":1})")), HasSubstr("two texts"));
}

TEST(Bpe, LimitsIdsAndMerges) {
  Json model = small_model({{"a", "b"}, {"b", "c"}});
  EXPECT_THAT(refusal(model, {.merges_max = 1}), HasSubstr("2 merges, at most 1"));
  EXPECT_THAT(refusal(model, {.token_id_max = 256}), HasSubstr("allowed are 0 to 256"));
}

}  // namespace
}  // namespace wideep::tokenizer
