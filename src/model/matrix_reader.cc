#include "model/matrix_reader.h"

#include "base/check.h"
#include "base/rounding.h"

#include <algorithm>
#include <cmath>

namespace wideep::model {
namespace {

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
    case Storage::kInt4:
      return Dtype::kInt4;
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
  const auto num_bytes = static_cast<size_t>((rows.end - rows.begin) * row_bytes);
  if (values_.size() < num_bytes) values_ = AlignedBuffer(num_bytes);
  const std::span<std::byte> values = values_.bytes().first(num_bytes);
  const int64_t offset = (source.first_row + rows.begin) * row_bytes;
  WD_TRY(source.values.file->read(*source.values.entry, offset, values));
  const int64_t bad = find_bad_value(values, source.storage);
  if (bad >= 0) {
    const int64_t cols = std::max<int64_t>(source.cols, 1);
    return invalid_argument("{}: the value at [{}, {}] is not a finite number", source.where(),
                            rows.begin + bad / cols, bad % cols);
  }
  if (source.scales) WD_TRY(read_scales(source, rows));
  return math::SourceMatrix{
      .dtype = dtype_of(source.storage),
      .n = rows.end - rows.begin,
      .k = std::max<int64_t>(source.cols, 1),
      .data = values_.data(),
      .block_scales = source.storage == Storage::kFp8 ? scales_.data() : nullptr,
      .group_scales = source.storage == Storage::kInt4 ? group_scales_.data() : nullptr,
  };
}

// Scales of the rows: FP8 one per 128 x 128 block, f32; INT4 one per row and 32 columns, bf16.
Status MatrixReader::read_scales(const TensorSource& source, RowRange rows) {
  const bool is_fp8 = source.storage == Storage::kFp8;
  const int64_t rows_per_scale = is_fp8 ? math::kScaleBlock : 1;
  const int64_t cols_per_scale = is_fp8 ? math::kScaleBlock : math::kInt4Group;
  const int64_t per_row = divide_up(source.cols, cols_per_scale);
  const int64_t first = rows.begin / rows_per_scale;
  const int64_t count = (divide_up(rows.end, rows_per_scale) - first) * per_row;
  const TensorRef& ref = *source.scales;
  scales_.resize(static_cast<size_t>(count));
  if (is_fp8) {
    const auto bytes = std::as_writable_bytes(std::span(scales_));
    WD_TRY(ref.file->read(*ref.entry, first * per_row * 4, bytes));
  } else {
    group_scales_.resize(static_cast<size_t>(count));
    const auto bytes = std::as_writable_bytes(std::span(group_scales_));
    WD_TRY(ref.file->read(*ref.entry, first * per_row * 2, bytes));
    std::ranges::transform(group_scales_, scales_.begin(), math::bf16_to_f32);
  }
  for (int64_t i = 0; i < count; ++i) {
    const float scale = scales_[static_cast<size_t>(i)];
    // A NaN fails both; so does a scale that would take the largest code to infinity.
    if (std::isfinite(scale * math::kFp8Max) && scale >= 0) continue;
    return invalid_argument(
        "{}: tensor '{}': the scale at [{}, {}] is {}, not a number >= 0 that leaves values finite",
        ref.file->name(), ref.entry->name, first + i / per_row, i % per_row, scale);
  }
  return {};
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
