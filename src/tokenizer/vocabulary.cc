#include "tokenizer/vocabulary.h"

#include "base/hash.h"
#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <array>
#include <limits>

namespace wideep::tokenizer {
namespace {

constexpr size_t kSlotsMin = 1024;
constexpr size_t kArenaBytesMax = std::numeric_limits<uint32_t>::max();

// Code points to bytes, -1 where the alphabet has none. Printable Latin-1 stands for itself, the
// other 68 bytes in ascending order for U+0100 onwards.
constexpr std::array<int16_t, kAlphabetEnd> make_alphabet() {
  std::array<int16_t, kAlphabetEnd> table{};
  table.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
                        (byte >= 0xAE && byte <= 0xFF);
    table[static_cast<size_t>(itself ? byte : next++)] = static_cast<int16_t>(byte);
  }
  return table;
}

constexpr auto kAlphabet = make_alphabet();

}  // namespace

Status Vocabulary::add(std::string_view bytes, TokenId id) {
  const auto position = subscript(id);
  if (contains(id)) {
    if (this->bytes(id) == bytes) return {};
    return invalid_argument("token id {} is given to two texts", index(id));
  }
  if (arena_.size() + bytes.size() > kArenaBytesMax) {
    return error(ErrorCode::kExhausted, "vocabulary has more than {} bytes", kArenaBytesMax);
  }
  if (position >= spans_.size()) spans_.resize(position + 1);
  spans_[position] = {static_cast<uint32_t>(arena_.size()), static_cast<int32_t>(bytes.size())};
  arena_ += bytes;
  if (2 * (num_entries_ + 1) > slots_.size()) grow();
  int32_t& slot = slots_[slot_of(bytes)];
  if (slot < 0) {
    slot = index(id);
    ++num_entries_;
  }
  return {};
}

// The slot that holds `bytes`, or the empty one where they would go.
size_t Vocabulary::slot_of(std::string_view bytes) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = xxh64(bytes) & mask;
  while (slots_[slot] >= 0 && this->bytes(TokenId{slots_[slot]}) != bytes)
    slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::grow() {
  const std::vector<int32_t> old = std::move(slots_);
  slots_.assign(old.empty() ? kSlotsMin : 2 * old.size(), -1);
  for (const int32_t id : old) {
    if (id >= 0) slots_[slot_of(bytes(TokenId{id}))] = id;
  }
}

std::optional<TokenId> Vocabulary::find(std::string_view bytes) const {
  if (slots_.empty()) return std::nullopt;
  const int32_t id = slots_[slot_of(bytes)];
  return id < 0 ? std::nullopt : std::optional(TokenId{id});
}

std::string_view Vocabulary::bytes(TokenId id) const {
  if (!contains(id)) return {};
  const Span& span = spans_[subscript(id)];
  return std::string_view(arena_).substr(span.offset, static_cast<size_t>(span.length));
}

bool Vocabulary::contains(TokenId id) const {
  return index(id) >= 0 && index(id) < size() && spans_[subscript(id)].length >= 0;
}

std::optional<char> byte_of_alphabet(char32_t character) {
  if (character >= kAlphabet.size() || kAlphabet[character] < 0) return std::nullopt;
  return static_cast<char>(kAlphabet[character]);
}

std::optional<std::string> bytes_of_alphabet(std::string_view key) {
  std::string bytes;
  for (size_t i = 0; i < key.size();) {
    const Character character = character_at(key, i);
    const std::optional<char> byte = byte_of_alphabet(character.code);
    if (!byte) return std::nullopt;
    bytes += *byte;
    i += character.size;
  }
  return bytes;
}

}  // namespace wideep::tokenizer
