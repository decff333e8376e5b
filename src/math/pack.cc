// Packing of weight matrices, and its inverse for tests: see packed_layout.h for where bytes go.
#include "base/check.h"
#include "base/rounding.h"
#include "math/gemm.h"
#include "math/packed_layout.h"
#include "math/scalar_values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

namespace wideep::math {
namespace {

using Dtype = SourceMatrix::Dtype;

// Code of a compressed-tensors pack-quantized matrix: eight nibbles in an i32, lowest first.
int int4_code(const SourceMatrix& w, int64_t row, int64_t col) {
  const auto word = load<uint32_t>(w.data, row * (w.k / 8) + col / 8);
  return static_cast<int>((word >> (4 * (col % 8))) & 0xFU) - 8;
}

// What checkpoints are made of has loops of its own, because loading should wait for the disk.
void decode_row(const SourceMatrix& w, int64_t row, float* out) {
  const std::byte* const values = w.data + row * w.k * (w.dtype == Dtype::kF32 ? 4 : 2);
  if (w.dtype == Dtype::kF32) {
    std::memcpy(out, values, static_cast<size_t>(w.k) * sizeof(float));
  } else if (w.dtype == Dtype::kBf16) {
    for (int64_t col = 0; col < w.k; ++col)
      out[col] = bf16_to_f32(load<uint16_t>(values, col));
  } else {
    for (int64_t col = 0; col < w.k; ++col)
      out[col] = w.at(row, col);
  }
}

// One f32 scale per 128 x 128 block: the source's own, or amax / 448 of what it holds.
std::vector<float> fp8_scales(const SourceMatrix& w) {
  const int64_t block_cols = divide_up(w.k, kScaleBlock);
  const auto count = static_cast<size_t>(divide_up(w.n, kScaleBlock) * block_cols);
  if (w.dtype == Dtype::kFp8) return {w.block_scales, w.block_scales + count};
  std::vector<float> scales(count, 0.0F);
  std::vector<float> values(static_cast<size_t>(w.k));
  for (int64_t row = 0; row < w.n; ++row) {
    decode_row(w, row, values.data());
    float* of_row = scales.data() + row / kScaleBlock * block_cols;
    for (int64_t col = 0; col < w.k; ++col) {
      float& amax = of_row[col / kScaleBlock];
      amax = std::max(amax, std::abs(values[static_cast<size_t>(col)]));
    }
  }
  for (float& scale : scales)
    scale = scale == 0.0F ? 1.0F : scale / kFp8Max;
  return scales;
}

// A source and what is derived from it once.
struct Source {
  const SourceMatrix* matrix = nullptr;
  std::vector<float> block_scales;  // for a kFp8 target
};

// Where a panel's column comes from; matrix == nullptr: padding.
struct Column {
  const Source* source = nullptr;
  int64_t row = 0;
};

using Columns = std::array<Column, kPanelCols>;

class PanelPacker {
 public:
  PanelPacker(WeightFormat format, int64_t k)
      : format_(format),
        k_(k),
        kp_(padded_k(k)),
        values_(static_cast<size_t>(kPanelCols * kp_)),
        codes_(static_cast<size_t>(kPanelCols * kp_)) {}

  void pack(const Columns& columns, std::byte* out) {
    switch (format_) {
      case WeightFormat::kF32:
        return pack_f32(columns, out);
      case WeightFormat::kBf16:
        return pack_bf16(columns, out);
      case WeightFormat::kFp8:
        return pack_fp8(columns, out);
      case WeightFormat::kInt8:
        return pack_int8(columns, out);
      case WeightFormat::kInt4:
        return pack_int4(columns, out);
    }
  }

 private:
  void decode(const Columns& columns) {
    std::fill(values_.begin(), values_.end(), 0.0F);
    for (int64_t c = 0; c < kPanelCols; ++c) {
      const Column& column = columns[static_cast<size_t>(c)];
      if (column.source != nullptr)
        decode_row(*column.source->matrix, column.row, values_.data() + c * kp_);
    }
  }

  // One cache line of every column.
  using Lines = std::array<std::array<std::byte, 64>, kPanelCols>;

  // Calls use(k, lines) for every line of from [64][kp]. Columns often lie a multiple of 4 KiB
  // apart: read value by value, their lines would push each other out of the first-level cache.
  template <typename T, typename Use>
  void for_lines(const T* from, Use use) const {
    alignas(64) Lines lines;
    for (int64_t k = 0; k < kp_; k += 64 / static_cast<int64_t>(sizeof(T))) {
      for (int64_t c = 0; c < kPanelCols; ++c)
        std::memcpy(lines[static_cast<size_t>(c)].data(), from + c * kp_ + k, 64);
      use(k, lines);
    }
  }

  // from [64][kp] -> out [kp/Group][64][Group].
  template <int64_t Group, typename T>
  void interleave(const T* from, std::byte* out) const {
    constexpr size_t kBytes = Group * sizeof(T);
    for_lines(from, [&](int64_t, const Lines& lines) {
      for (size_t offset = 0; offset < 64; offset += kBytes) {
        for (const auto& line : lines) {
          std::memcpy(out, line.data() + offset, kBytes);
          out += kBytes;
        }
      }
    });
  }

  void pack_f32(const Columns& columns, std::byte* out) {
    decode(columns);
    interleave<1>(values_.data(), out);
  }

  void pack_bf16(const Columns& columns, std::byte* out) {
    bf16_.assign(values_.size(), 0);
    for (int64_t c = 0; c < kPanelCols; ++c) {
      const Column& column = columns[static_cast<size_t>(c)];
      if (column.source == nullptr) continue;
      const SourceMatrix& w = *column.source->matrix;
      uint16_t* const to = bf16_.data() + c * kp_;
      if (w.dtype == Dtype::kBf16) {
        std::memcpy(to, w.data + column.row * k_ * 2, static_cast<size_t>(k_) * 2);
      } else {
        decode_row(w, column.row, values_.data());
        std::transform(values_.begin(), values_.begin() + k_, to, f32_to_bf16);
      }
    }
    interleave<2>(bf16_.data(), out);
  }

  void pack_fp8(const Columns& columns, std::byte* out) {
    decode(columns);
    std::fill(codes_.begin(), codes_.end(), uint8_t{0});
    std::byte* scales_out = out + panel_value_bytes(format_, kp_);
    std::memset(scales_out, 0, static_cast<size_t>(fp8_scale_bytes(kp_)));
    for (int64_t c = 0; c < kPanelCols; ++c) {
      const Column& column = columns[static_cast<size_t>(c)];
      if (column.source == nullptr) continue;
      const int64_t block_cols = divide_up(k_, kScaleBlock);
      const float* scales =
          column.source->block_scales.data() + column.row / kScaleBlock * block_cols;
      const int64_t half = c / (kPanelCols / 2);
      for (int64_t b = 0; b < block_cols; ++b)
        std::memcpy(scales_out + (2 * b + half) * 4, scales + b, 4);
      encode_fp8(column, c, scales);
    }
    for_lines(codes_.data(), [&](int64_t first, const Lines& lines) {
      for (int64_t k = 0; k < 64; ++k) {
        for (int64_t c = 0; c < kPanelCols; ++c) {
          const auto& line = lines[static_cast<size_t>(c)];
          out[fp8_code_offset(first + k, c)] = line[static_cast<size_t>(k)];
        }
      }
    });
  }

  void encode_fp8(const Column& column, int64_t c, const float* scales) {
    const SourceMatrix& w = *column.source->matrix;
    uint8_t* codes = codes_.data() + c * kp_;
    if (w.dtype == Dtype::kFp8) {
      std::memcpy(codes, w.data + column.row * k_, static_cast<size_t>(k_));
      return;
    }
    for (int64_t k = 0; k < k_; ++k)
      codes[k] = f32_to_fp8(values_[static_cast<size_t>(c * kp_ + k)] / scales[k / kScaleBlock]);
  }

  void pack_int8(const Columns& columns, std::byte* out) {
    decode(columns);
    std::array<float, kPanelCols> scales{};
    for (int64_t c = 0; c < kPanelCols; ++c)
      scales[static_cast<size_t>(c)] = encode_int8(columns[static_cast<size_t>(c)], c);
    interleave<4>(codes_.data(), out);
    std::memcpy(out + panel_value_bytes(format_, kp_), scales.data(), sizeof scales);
  }

  float encode_int8(const Column& column, int64_t c) {
    const std::span<const float> values(values_.data() + c * kp_, static_cast<size_t>(kp_));
    uint8_t* codes = codes_.data() + c * kp_;
    float scale = 0.0F;
    if (column.source != nullptr && column.source->matrix->dtype == Dtype::kInt8) {
      scale = column.source->matrix->channel_scales[column.row];
      for (int64_t k = 0; k < kp_; ++k) {
        const int code =
            k < k_ ? load<int8_t>(column.source->matrix->data, column.row * k_ + k) : 0;
        codes[k] = static_cast<uint8_t>(code + 128);
      }
      return scale;
    }
    for (const float value : values)
      scale = std::max(scale, std::abs(value));
    scale /= 127.0F;
    if (scale == 0.0F) {
      std::fill_n(codes, kp_, uint8_t{128});
      return scale;
    }
    for (int64_t k = 0; k < kp_; ++k) {
      const int code = round_to_int(values[static_cast<size_t>(k)] / scale);
      codes[k] = static_cast<uint8_t>(std::clamp(code, -127, 127) + 128);
    }
    return scale;
  }

  void pack_int4(const Columns& columns, std::byte* out) {
    decode(columns);
    for (int64_t group = 0; group < kp_ / kInt4Group; ++group) {
      std::byte* scales = out + group * kInt4GroupBytes + kInt4GroupCodes;
      for (int64_t c = 0; c < kPanelCols; ++c) {
        const uint16_t scale = encode_int4(columns[static_cast<size_t>(c)], c, group * kInt4Group);
        std::memcpy(scales + 2 * c, &scale, sizeof scale);
      }
      interleave_int4(group * kInt4Group, out + group * kInt4GroupBytes);
    }
  }

  // Codes of column c, inputs [begin, begin + 32); returns their bf16 scale.
  uint16_t encode_int4(const Column& column, int64_t c, int64_t begin) {
    const float* values = values_.data() + c * kp_ + begin;
    uint8_t* codes = codes_.data() + c * kp_ + begin;
    const bool exact =
        column.source != nullptr && column.source->matrix->dtype == Dtype::kInt4 && begin < k_;
    if (exact) {
      const SourceMatrix& w = *column.source->matrix;
      for (int64_t k = 0; k < kInt4Group; ++k)
        codes[k] = static_cast<uint8_t>(int4_code(w, column.row, begin + k) + 8);
      return w.group_scales[column.row * (w.k / kInt4Group) + begin / kInt4Group];
    }
    float amax = 0.0F;
    for (int64_t k = 0; k < kInt4Group; ++k)
      amax = std::max(amax, std::abs(values[k]));
    const uint16_t scale_bits = f32_to_bf16(amax / 7.0F);
    const float scale = bf16_to_f32(scale_bits);
    for (int64_t k = 0; k < kInt4Group; ++k) {
      const int code = scale == 0.0F ? 0 : std::clamp(round_to_int(values[k] / scale), -8, 7);
      codes[k] = static_cast<uint8_t>(code + 8);
    }
    return scale_bits;
  }

  void interleave_int4(int64_t begin, std::byte* out) const {
    for (int64_t j = 0; j < kInt4Group; j += 8) {
      for (int64_t c = 0; c < kPanelCols; ++c) {
        const uint8_t* codes = codes_.data() + c * kp_ + begin + j;
        for (int64_t i = 0; i < 4; ++i)
          *out++ = static_cast<std::byte>(codes[i] | (codes[4 + i] << 4));
      }
    }
  }

  WeightFormat format_;
  int64_t k_;
  int64_t kp_;
  std::vector<float> values_;   // [64][kp]
  std::vector<uint8_t> codes_;  // [64][kp]
  std::vector<uint16_t> bf16_;  // [64][kp]
};

Source prepare(const SourceMatrix& w, WeightFormat format) {
  WD_CHECK(w.n > 0 && w.k > 0 && w.k <= kInputsMax);
  WD_CHECK(w.dtype != Dtype::kInt4 || w.k % kInt4Group == 0);
  Source source{.matrix = &w};
  if (format == WeightFormat::kFp8) source.block_scales = fp8_scales(w);
  return source;
}

}  // namespace

int64_t panel_bytes(WeightFormat format, int64_t k) {
  const int64_t kp = padded_k(k);
  const int64_t values = panel_value_bytes(format, kp);
  if (format == WeightFormat::kFp8) return values + fp8_scale_bytes(kp);
  if (format == WeightFormat::kInt8) return values + kPanelCols * 4;
  return values;
}

int64_t packed_bytes(WeightFormat format, int64_t n, int64_t k) {
  return divide_up(n, kPanelCols) * panel_bytes(format, k);
}

int64_t packed_gate_up_bytes(WeightFormat format, int64_t inner, int64_t k) {
  return divide_up(inner, kPanelCols / 2) * panel_bytes(format, k);
}

float SourceMatrix::at(int64_t row, int64_t col) const {
  const int64_t index = row * k + col;
  switch (dtype) {
    case Dtype::kF32:
      return load<float>(data, index);
    case Dtype::kBf16:
      return bf16_to_f32(load<uint16_t>(data, index));
    case Dtype::kF16:
      return f16_to_f32(load<uint16_t>(data, index));
    case Dtype::kFp8: {
      const int64_t block = row / kScaleBlock * divide_up(k, kScaleBlock) + col / kScaleBlock;
      return fp8_to_f32(load<uint8_t>(data, index)) * block_scales[block];
    }
    case Dtype::kInt8:
      return static_cast<float>(load<int8_t>(data, index)) * channel_scales[row];
    case Dtype::kInt4: {
      const float scale = bf16_to_f32(group_scales[row * (k / kInt4Group) + col / kInt4Group]);
      return static_cast<float>(int4_code(*this, row, col)) * scale;
    }
  }
  WD_CHECK(false);
}

void pack(const SourceMatrix& w, WeightFormat format, std::span<std::byte> out) {
  WD_CHECK(static_cast<int64_t>(out.size()) == packed_bytes(format, w.n, w.k));
  const Source source = prepare(w, format);
  PanelPacker packer(format, w.k);
  for (int64_t panel = 0; panel < divide_up(w.n, kPanelCols); ++panel) {
    Columns columns;
    for (int64_t c = 0; c < kPanelCols; ++c) {
      const int64_t row = panel * kPanelCols + c;
      if (row < w.n) columns[static_cast<size_t>(c)] = {.source = &source, .row = row};
    }
    packer.pack(columns, out.data() + panel * panel_bytes(format, w.k));
  }
}

void pack_gate_up(const SourceMatrix& gate,
                  const SourceMatrix& up,
                  WeightFormat format,
                  std::span<std::byte> out) {
  WD_CHECK(gate.n == up.n && gate.k == up.k);
  WD_CHECK(static_cast<int64_t>(out.size()) == packed_gate_up_bytes(format, gate.n, gate.k));
  const Source gate_source = prepare(gate, format);
  const Source up_source = prepare(up, format);
  PanelPacker packer(format, gate.k);
  constexpr int64_t kHalf = kPanelCols / 2;
  for (int64_t panel = 0; panel < divide_up(gate.n, kHalf); ++panel) {
    Columns columns;
    for (int64_t c = 0; c < kPanelCols; ++c) {
      const int64_t row = panel * kHalf + c % kHalf;
      const Source* source = c < kHalf ? &gate_source : &up_source;
      if (row < gate.n) columns[static_cast<size_t>(c)] = {.source = source, .row = row};
    }
    packer.pack(columns, out.data() + panel * panel_bytes(format, gate.k));
  }
}

float unpack_value(const PackedMatrix& w, int64_t row, int64_t col) {
  const int64_t kp = padded_k(w.k);
  const std::byte* panel = w.bytes.data() + row / kPanelCols * panel_bytes(w.format, w.k);
  const std::byte* scales = panel + panel_value_bytes(w.format, kp);
  const int64_t c = row % kPanelCols;
  const auto index = [&](int64_t group) {
    return (col / group * kPanelCols + c) * group + col % group;
  };
  switch (w.format) {
    case WeightFormat::kF32:
      return load<float>(panel, index(1));
    case WeightFormat::kBf16:
      return bf16_to_f32(load<uint16_t>(panel, index(2)));
    case WeightFormat::kFp8:
      return fp8_to_f32(load<uint8_t>(panel, fp8_code_offset(col, c))) *
             load<float>(scales, col / kScaleBlock * 2 + c / (kPanelCols / 2));
    case WeightFormat::kInt8:
      return static_cast<float>(load<uint8_t>(panel, index(4)) - 128) * load<float>(scales, c);
    case WeightFormat::kInt4: {
      const std::byte* group = panel + col / kInt4Group * kInt4GroupBytes;
      const int64_t in_group = col % kInt4Group;
      const int64_t byte = (in_group / 8 * kPanelCols + c) * 4 + in_group % 4;
      const int code = (load<uint8_t>(group, byte) >> (in_group % 8 / 4 * 4)) & 0xF;
      return static_cast<float>(code - 8) * bf16_to_f32(load<uint16_t>(group + kInt4GroupCodes, c));
    }
  }
  WD_CHECK(false);
}

}  // namespace wideep::math
