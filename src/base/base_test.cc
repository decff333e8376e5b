#include "base/hash.h"
#include "base/random.h"
#include "base/result.h"

#include <gtest/gtest.h>

namespace wideep {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return invalid_argument("{} is odd", value);
  return value / 2;
}

Result<int> quarter(int value) {
  WD_ASSIGN_OR_RETURN(const int once, half(value));
  return half(once);
}

TEST(Result, PassesTheFirstErrorOn) {
  EXPECT_EQ(quarter(8), 2);
  const auto failed = quarter(6);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "3 is odd");
  EXPECT_EQ(name(failed.error().code), "invalid argument");
}

TEST(Random, IsAFunctionOfSeedAndCounterAlone) {
  EXPECT_EQ(random_bits(7, 3), random_bits(7, 3));
  EXPECT_NE(random_bits(7, 3), random_bits(7, 4));
  EXPECT_NE(random_bits(7, 3), random_bits(8, 3));
  EXPECT_NE(random_bits(7, 3, 0), random_bits(7, 3, 1));
}

TEST(Random, UniformHasTheRightMean) {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i)
    sum += random_uniform(1, i);
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

TEST(Checksum, DependsOnTheBytesAndNotOnThePieces) {
  Checksum checksum;
  EXPECT_EQ(checksum.take(), 0x2D06800538D394C2ULL);  // XXH3 of nothing
  const std::string text(1000, 'x');
  const auto bytes = std::as_bytes(std::span(text));
  checksum.add(bytes);
  const uint64_t whole = checksum.take();
  checksum.add(bytes.first(17));
  checksum.add(bytes.subspan(17));
  EXPECT_EQ(checksum.take(), whole);
  checksum.add(bytes.first(999));
  EXPECT_NE(checksum.take(), whole);
}

TEST(Hash, MatchesKnownVectors) {
  EXPECT_EQ(xxh64(std::string_view("")), 0xEF46DB3751D8E999ULL);
  EXPECT_EQ(to_hex(sha256({}), 8), "e3b0c442");
}

TEST(Hash, HmacMatchesRfc4231) {
  const std::string key = "Jefe";
  const std::string text = "what do ya want for nothing?";
  EXPECT_EQ(to_hex(hmac_sha256(std::as_bytes(std::span(key)), std::as_bytes(std::span(text))), 16),
            "5bdcc146bf60754e");
}

TEST(Hash, Base64UrlReadsBackAndIsStrict) {
  for (size_t size = 0; size < 40; ++size) {
    std::vector<std::byte> bytes(size);
    for (size_t i = 0; i < size; ++i)
      bytes[i] = static_cast<std::byte>(random_bits(size, i));
    EXPECT_EQ(from_base64url(to_base64url(bytes)), bytes);
  }
  for (const char* bad : {"A", "AB=", "A+BC", "AB"}) {
    EXPECT_FALSE(from_base64url(bad)) << bad;  // the last has bits that no byte needs
  }
}

}  // namespace
}  // namespace wideep
