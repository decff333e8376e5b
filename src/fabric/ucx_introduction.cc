#include "fabric/ucx_introduction.h"

#include <algorithm>
#include <cstring>

namespace wideep::fabric {
namespace {

constexpr uint32_t kKeyBytesMax = 64 << 10;

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <typename T>
void append_number(std::vector<std::byte>& out, T value) {
  append(out, std::as_bytes(std::span(&value, 1)));
}

void append_counted(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  append_number(out, static_cast<uint32_t>(bytes.size()));
  append(out, bytes);
}

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <typename T>
  Result<T> number() {
    if (left_.size() < sizeof(T)) return invalid_argument("ucx introduction is cut off");
    T value;
    std::memcpy(&value, left_.data(), sizeof value);
    left_ = left_.subspan(sizeof value);
    return value;
  }

  Result<std::vector<std::byte>> counted() {
    WD_ASSIGN_OR_RETURN(const uint32_t count, number<uint32_t>());
    if (count == 0 || count > kKeyBytesMax || count > left_.size())
      return invalid_argument("ucx introduction: a field of {} bytes, {} are left", count,
                              left_.size());
    const auto field = left_.first(count);
    left_ = left_.subspan(count);
    return std::vector(field.begin(), field.end());
  }

  bool at_end() const { return left_.empty(); }

 private:
  std::span<const std::byte> left_;
};

}  // namespace

std::vector<std::byte> encode(const UcxIntroduction& introduction) {
  std::vector<std::byte> out;
  append_counted(out, introduction.address);
  append_number(out, static_cast<uint32_t>(introduction.windows.size()));
  for (const UcxIntroduction::Window& window : introduction.windows) {
    append_number(out, static_cast<uint32_t>(index(window.rank)));
    append_number(out, window.base);
    append_counted(out, window.key);
  }
  return out;
}

Result<UcxIntroduction> parse_ucx_introduction(std::span<const std::byte> bytes,
                                               std::span<const RankId> node) {
  Reader reader(bytes);
  UcxIntroduction introduction;
  WD_ASSIGN_OR_RETURN(introduction.address, reader.counted());
  WD_ASSIGN_OR_RETURN(const uint32_t count, reader.number<uint32_t>());
  if (count != node.size())
    return invalid_argument("ucx introduction: {} arenas of a node of {} ranks", count,
                            node.size());
  std::vector<RankId> expected(node.begin(), node.end());
  for (uint32_t i = 0; i < count; ++i) {
    UcxIntroduction::Window& window = introduction.windows.emplace_back();
    WD_ASSIGN_OR_RETURN(const uint32_t rank, reader.number<uint32_t>());
    window.rank = RankId{static_cast<int32_t>(rank)};
    if (std::erase(expected, window.rank) != 1)
      return invalid_argument("ucx introduction: rank {} is not expected", rank);
    WD_ASSIGN_OR_RETURN(window.base, reader.number<uint64_t>());
    WD_ASSIGN_OR_RETURN(window.key, reader.counted());
  }
  if (!reader.at_end()) return invalid_argument("ucx introduction: more than it says");
  return introduction;
}

}  // namespace wideep::fabric
