// Little-endian numbers and short texts as bytes, for messages and tickets.
//
// A reader never reads beyond its end and never allocates more than a text's limit: it remembers
// that something was wrong and gives zeros from then on, so that a parser checks once, at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace wideep {

class ByteWriter {
 public:
  template <typename T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  void number(T value) {
    const auto* bytes =
        reinterpret_cast<const std::byte*>(&value);  // little-endian on all our machines
    out_.insert(out_.end(), bytes, bytes + sizeof value);
  }

  void bytes(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }

  // Behind its length, of the width of `Length`. A longer text is our bug (checked).
  template <typename Length = uint16_t>
  void text(std::string_view text) {
    check_fits(text.size(), static_cast<Length>(-1));
    number(static_cast<Length>(text.size()));
    bytes(std::as_bytes(std::span(text)));
  }

  std::vector<std::byte>& out() { return out_; }

  const std::vector<std::byte>& out() const { return out_; }

 private:
  static void check_fits(size_t size, uint64_t max);

  std::vector<std::byte> out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> in) : in_(in) {}

  template <typename T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  T number() {
    T value{};
    const auto from = take(sizeof value);
    if (!from.empty()) std::memcpy(&value, from.data(), sizeof value);
    return value;
  }

  // A text longer than `bytes_max` is wrong.
  template <typename Length = uint16_t>
  std::string text(size_t bytes_max) {
    const auto size = number<Length>();
    if (size > bytes_max) failed_ = true;
    const auto from = take(size);
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }

  // Exactly `out.size()` bytes; zeros if there are fewer.
  void bytes(std::span<std::byte> out);

  bool failed() const { return failed_; }

  // Everything was read and nothing was wrong.
  bool is_complete() const { return !failed_ && in_.empty(); }

  size_t remaining() const { return in_.size(); }

 private:
  std::span<const std::byte> take(size_t count);

  std::span<const std::byte> in_;
  bool failed_ = false;
};

}  // namespace wideep
