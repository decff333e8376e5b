#include "base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace wideep {
namespace {

constexpr std::string_view kBase64Url =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

}  // namespace

uint64_t xxh64(std::span<const std::byte> bytes, uint64_t seed) {
  return XXH64(bytes.data(), bytes.size(), seed);
}

uint64_t xxh64(std::string_view text, uint64_t seed) {
  return XXH64(text.data(), text.size(), seed);
}

Digest sha256(std::span<const std::byte> bytes) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

Digest hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> bytes) {
  Digest digest;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
       reinterpret_cast<unsigned char*>(digest.data()), nullptr);
  return digest;
}

std::string to_base64url(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t word = 0;
  int num_bits = 0;
  for (const std::byte byte : bytes) {
    word = word << 8 | std::to_integer<uint32_t>(byte);
    for (num_bits += 8; num_bits >= 6; num_bits -= 6)
      text += kBase64Url[word >> (num_bits - 6) & 63];
  }
  if (num_bits > 0) text += kBase64Url[word << (6 - num_bits) & 63];
  return text;
}

std::optional<std::vector<std::byte>> from_base64url(std::string_view text) {
  if (text.size() % 4 == 1) return std::nullopt;
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() * 3 / 4);
  uint32_t word = 0;
  int num_bits = 0;
  for (const char c : text) {
    const size_t value = kBase64Url.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    word = word << 6 | static_cast<uint32_t>(value);
    num_bits += 6;
    if (num_bits < 8) continue;
    num_bits -= 8;
    bytes.push_back(static_cast<std::byte>(word >> num_bits & 255));
  }
  if ((word & ((1U << num_bits) - 1)) != 0) return std::nullopt;  // one text for one value
  return bytes;
}

std::string to_hex(std::span<const std::byte> bytes, size_t digits) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kHex[std::to_integer<int>(byte) >> 4];
    text += kHex[std::to_integer<int>(byte) & 15];
  }
  return text.substr(0, digits);
}

bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace wideep
