// The two directions of a byte-level vocabulary: raw bytes <-> token ids.
#pragma once

#include "base/ids.h"
#include "base/result.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

// Filled once, then read by any number of threads. Ids need not be dense, but memory grows with the
// largest one, so the caller limits it.
class Vocabulary {
 public:
  // kInvalidArgument if the id has other bytes already. The first id of equal bytes is the one that
  // find() gives.
  Status add(std::string_view bytes, TokenId id);

  std::optional<TokenId> find(std::string_view bytes) const;
  // The bytes of a token; empty for an id that nobody added. Valid until the next add().
  std::string_view bytes(TokenId id) const;
  bool contains(TokenId id) const;

  // Largest id + 1.
  int32_t size() const { return static_cast<int32_t>(spans_.size()); }

 private:
  struct Span {
    uint32_t offset = 0;
    int32_t length = -1;  // -1: no such token
  };

  size_t slot_of(std::string_view bytes) const;
  void grow();

  std::string arena_;
  std::vector<Span> spans_;     // by id
  std::vector<int32_t> slots_;  // open addressing by hash of the bytes: id or -1
  size_t num_entries_ = 0;
};

// Characters of the alphabet lie below.
inline constexpr char32_t kAlphabetEnd = 0x144;
// The byte that stands behind a character of GPT-2's alphabet, in which tokenizer.json spells bytes
// (U+0120 is a space); nullopt for characters outside it.
std::optional<char> byte_of_alphabet(char32_t character);
// The raw bytes of a vocabulary key; nullopt if a character is not in the alphabet.
std::optional<std::string> bytes_of_alphabet(std::string_view key);

}  // namespace wideep::tokenizer
