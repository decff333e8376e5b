#include "model/matrix_reader.h"

#include "base/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace wideep::model {
namespace {

constexpr int64_t kBlock = 128;
constexpr int64_t kInt4Group = 32;

// Index of the first value whose bits are all set under `mask` (NaN or infinity), or -1. A plain
// loop over a chunk without an exit, so that it runs at the speed of memory.
template <typename Bits>
int64_t find_bad(std::span<const std::byte> bytes, Bits mask) {
  constexpr int64_t kChunk = 4096;
  const auto* values = reinterpret_cast<const Bits*>(bytes.data());
  const auto count = static_cast<int64_t>(bytes.size() / sizeof(Bits));
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = std::min(count, begin + kChunk);
    Bits bad = 0;
    for (int64_t i = begin; i < end; ++i)
      bad |= static_cast<Bits>((values[i] & mask) == mask);
    if (bad == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if ((values[i] & mask) == mask) return i;
    }
  }
  return -1;
}

int64_t find_bad_value(std::span<const std::byte> bytes, Storage storage) {
  switch (storage) {
    case Storage::kF32:
      return find_bad<uint32_t>(bytes, 0x7F800000U);
    case Storage::kF16:
      return find_bad<uint16_t>(bytes, 0x7C00);
    case Storage::kBf16:
      return find_bad<uint16_t>(bytes, 0x7F80);
    case Storage::kFp8:
      return find_bad<uint8_t>(bytes, 0x7F);
    case Storage::kInt4:
      return -1;
  }
  return -1;
}

math::SourceMatrix::Dtype dtype_of(Storage storage) {
  using Dtype = math::SourceMatrix::Dtype;
  switch (storage) {
    case Storage::kF16:
      return Dtype::kF16;
    case Storage::kBf16:
      return Dtype::kBf16;
    case Storage::kFp8:
      return Dtype::kFp8;
    default:
      return Dtype::kF32;
  }
}

}  // namespace

Result<math::SourceMatrix> MatrixReader::read(const TensorSource& source, RowRange rows) {
  WD_CHECK(rows.begin % kRowSlice == 0);
  WD_CHECK(rows.begin <= rows.end);
  WD_CHECK(rows.end <= source.rows);
  const int64_t row_bytes = source.row_bytes();
  values_.resize(static_cast<size_t>((rows.end - rows.begin) * row_bytes));
  const int64_t offset = (source.first_row + rows.begin) * row_bytes;
  WD_TRY(source.values.file->read(*source.values.entry, offset, values_));
  const int64_t bad = find_bad_value(values_, source.storage);
  if (bad >= 0) {
    const int64_t cols = std::max<int64_t>(source.cols, 1);
    return invalid_argument("{}: the value at [{}, {}] is not a finite number", source.where(),
                            rows.begin + bad / cols, bad % cols);
  }
  if (source.scales) WD_TRY(read_scales(source, rows));
  if (source.storage == Storage::kInt4) return expand_int4(source, rows);
  return math::SourceMatrix{
      .dtype = dtype_of(source.storage),
      .n = rows.end - rows.begin,
      .k = std::max<int64_t>(source.cols, 1),
      .data = values_.data(),
      .block_scales = source.scales ? scales_.data() : nullptr,
  };
}

// Scales of the rows: FP8 one per 128 x 128 block, f32; INT4 one per row and 32 columns, bf16.
Status MatrixReader::read_scales(const TensorSource& source, RowRange rows) {
  const bool is_fp8 = source.storage == Storage::kFp8;
  const int64_t rows_per_scale = is_fp8 ? kBlock : 1;
  const int64_t per_row = is_fp8 ? (source.cols + kBlock - 1) / kBlock : source.cols / kInt4Group;
  const int64_t first = rows.begin / rows_per_scale;
  const int64_t count = ((rows.end + rows_per_scale - 1) / rows_per_scale - first) * per_row;
  const int64_t value_bytes = is_fp8 ? 4 : 2;
  scale_bytes_.resize(static_cast<size_t>(count * value_bytes));
  scales_.resize(static_cast<size_t>(count));
  const TensorRef& ref = *source.scales;
  WD_TRY(ref.file->read(*ref.entry, first * per_row * value_bytes, scale_bytes_));
  for (int64_t i = 0; i < count; ++i) {
    if (is_fp8) {
      std::memcpy(&scales_[i], &scale_bytes_[i * 4], 4);
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, &scale_bytes_[i * 2], 2);
      scales_[i] = math::bf16_to_f32(bits);
    }
    if (!(std::isfinite(scales_[i]) && scales_[i] >= 0)) {
      return invalid_argument(
          "{}: tensor '{}': the scale at [{}, {}] is {}, not a finite "
          "number >= 0",
          ref.file->name(), ref.entry->name, first + i / per_row, i % per_row, scales_[i]);
    }
  }
  return {};
}

// Word w of a row holds columns 8w … 8w + 7, lowest nibble first; a nibble means its value - 8.
Result<math::SourceMatrix> MatrixReader::expand_int4(const TensorSource& source, RowRange rows) {
  const int64_t count = rows.end - rows.begin;
  expanded_.resize(static_cast<size_t>(count * source.cols));
  for (int64_t r = 0; r < count; ++r) {
    const std::byte* packed = values_.data() + r * source.row_bytes();
    const float* scales = scales_.data() + r * (source.cols / kInt4Group);
    float* out = expanded_.data() + r * source.cols;
    for (int64_t c = 0; c < source.cols; ++c) {
      const int nibble = std::to_integer<int>(packed[c / 2] >> (c % 2 * 4)) & 15;
      out[c] = static_cast<float>(nibble - 8) * scales[c / kInt4Group];
    }
  }
  return math::SourceMatrix{.dtype = math::SourceMatrix::Dtype::kF32,
                            .n = count,
                            .k = source.cols,
                            .data = reinterpret_cast<const std::byte*>(expanded_.data())};
}

Result<std::vector<float>> read_floats(const TensorSource& source) {
  MatrixReader reader;
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix matrix, reader.read(source, {0, source.rows}));
  std::vector<float> out(static_cast<size_t>(matrix.n * matrix.k));
  for (int64_t row = 0; row < matrix.n; ++row) {
    for (int64_t col = 0; col < matrix.k; ++col)
      out[row * matrix.k + col] = matrix.at(row, col);
  }
  return out;
}

}  // namespace wideep::model
