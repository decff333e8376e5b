#include "math/ffn.h"

#include "base/check.h"
#include "math/panel_product.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>

namespace wideep::math {
namespace {

constexpr int64_t kRowBlock = 64;
constexpr int64_t kHalf = kPanelCols / 2;
using Tile = std::array<float, kRowBlock * kPanelCols>;

int64_t inner_of(const FfnWeights& weights) {
  return weights.gate_up.n / 2;
}

// Rows of an item x one panel of `w` -> tile [rows][64].
void multiply(
    const Kernels& kernels, const PackedMatrix& w, int64_t panel, const Rows& x, Tile& tile) {
  kernels.multiply_panel({.format = w.format,
                          .row_format = x.format,
                          .kp = padded_k(w.k),
                          .panel = w.bytes.data() + panel * panel_bytes(w.format, w.k),
                          .rows = x.pointers.data(),
                          .num_rows = static_cast<int64_t>(x.pointers.size()),
                          .out = tile.data(),
                          .out_stride = kPanelCols});
}

void write_cols(const Kernels& kernels,
                RowFormat format,
                std::span<const float> values,
                int64_t first_col,
                std::byte* row) {
  if (format == RowFormat::kF32) {
    std::memcpy(row + first_col * 4, values.data(), values.size_bytes());
  } else {
    kernels.to_bf16(values.data(), static_cast<int64_t>(values.size()),
                    reinterpret_cast<uint16_t*>(row) + first_col);
  }
}

void check_groups(std::span<const FfnGroup> groups) {
  const FfnWeights& first = *groups.front().weights;
  for (const FfnGroup& group : groups) {
    const FfnWeights& w = *group.weights;
    WD_CHECK(group.in.size() == group.out.size());
    WD_CHECK(w.gate_up.format == first.gate_up.format && w.down.format == first.down.format);
    WD_CHECK(w.gate_up.n == first.gate_up.n && w.gate_up.k == first.gate_up.k);
    WD_CHECK(w.down.k == inner_of(w) && w.down.n == w.gate_up.k);
  }
}

}  // namespace

Ffn::Ffn(ThreadPool& pool,
         const Kernels& kernels,
         RowFormat out_format,
         int64_t rows_max,
         int64_t inner_max,
         Precision precision)
    : pool_(pool),
      kernels_(kernels),
      out_format_(out_format),
      precision_(precision),
      rows_max_(rows_max),
      inner_max_(inner_max),
      inner_f32_(static_cast<size_t>(rows_max * row_bytes(RowFormat::kF32, inner_max))),
      inner_storage_(static_cast<size_t>(rows_max * row_bytes(RowFormat::kF32, inner_max))),
      inner_rows_(static_cast<size_t>(rows_max)) {
  WD_CHECK(out_format == RowFormat::kF32 || out_format == RowFormat::kBf16);
}

void Ffn::list_items(std::span<const FfnGroup> groups) {
  gate_up_items_.clear();
  down_items_.clear();
  first_row_.clear();
  int64_t total = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const FfnWeights& w = *groups[g].weights;
    const auto num_rows = static_cast<int64_t>(groups[g].in.size());
    first_row_.push_back(total);
    total += num_rows;
    for (int64_t row = 0; row < num_rows; row += kRowBlock) {
      Item item{.group = static_cast<int32_t>(g),
                .first_row = static_cast<int32_t>(row),
                .num_rows = static_cast<int32_t>(std::min(kRowBlock, num_rows - row))};
      for (; item.panel < w.gate_up.num_panels(); ++item.panel)
        gate_up_items_.push_back(item);
      item.panel = 0;
      for (; item.panel < w.down.num_panels(); ++item.panel)
        down_items_.push_back(item);
    }
  }
  WD_CHECK(total <= rows_max_);
  const int64_t bytes = row_bytes(inner_format_, inner_);
  for (int64_t r = 0; r < total; ++r) {
    std::byte* row = inner_storage_.data() + r * bytes;
    inner_rows_[static_cast<size_t>(r)] = row;
    // The padding behind the columns may hold what a call of another shape left there.
    if (inner_ % 64 != 0) std::memset(row, 0, static_cast<size_t>(bytes));
  }
}

void Ffn::gate_up_item(std::span<const FfnGroup> groups, const Item& item) {
  const FfnGroup& group = groups[static_cast<size_t>(item.group)];
  const PackedMatrix& w = group.weights->gate_up;
  alignas(64) Tile tile;
  const auto rows =
      group.in.subspan(static_cast<size_t>(item.first_row), static_cast<size_t>(item.num_rows));
  multiply(kernels_, w, item.panel, {.format = input_format_, .cols = w.k, .pointers = rows}, tile);
  const int64_t first_col = item.panel * kHalf;
  const auto cols = static_cast<size_t>(std::min(kHalf, inner_ - first_col));
  const int64_t first = first_row_[static_cast<size_t>(item.group)] + item.first_row;
  for (int64_t r = 0; r < item.num_rows; ++r) {
    float* gate = tile.data() + r * kPanelCols;
    kernels_.silu_mul(gate, gate + kHalf, static_cast<int64_t>(cols), gate);
    const bool later = inner_format_ == RowFormat::kInt8;
    std::byte* row = later ? inner_f32_.data() + (first + r) * row_bytes(RowFormat::kF32, inner_)
                           : inner_rows_[static_cast<size_t>(first + r)];
    write_cols(kernels_, later ? RowFormat::kF32 : inner_format_, {gate, cols}, first_col, row);
  }
}

void Ffn::down_item(std::span<const FfnGroup> groups, const Item& item) {
  const FfnGroup& group = groups[static_cast<size_t>(item.group)];
  const PackedMatrix& w = group.weights->down;
  alignas(64) Tile tile;
  const int64_t first = first_row_[static_cast<size_t>(item.group)] + item.first_row;
  const std::span<const std::byte* const> rows(inner_rows_.data() + first,
                                               static_cast<size_t>(item.num_rows));
  multiply(kernels_, w, item.panel, {.format = inner_format_, .cols = w.k, .pointers = rows}, tile);
  const int64_t first_col = item.panel * kPanelCols;
  const auto cols = static_cast<size_t>(std::min(kPanelCols, w.n - first_col));
  for (int64_t r = 0; r < item.num_rows; ++r) {
    write_cols(kernels_, out_format_, {tile.data() + r * kPanelCols, cols}, first_col,
               group.out[static_cast<size_t>(item.first_row + r)]);
  }
}

void Ffn::forward(std::span<const FfnGroup> groups) {
  if (groups.empty()) return;
  check_groups(groups);
  const FfnWeights& weights = *groups.front().weights;
  inner_ = inner_of(weights);
  WD_CHECK(inner_ <= inner_max_);
  input_format_ = input_format(weights.gate_up.format, precision_);
  inner_format_ = input_format(weights.down.format, precision_);
  list_items(groups);
  const int64_t total = first_row_.back() + static_cast<int64_t>(groups.back().in.size());
  std::atomic<size_t> next_gate_up{0};
  std::atomic<int64_t> next_row{0};
  std::atomic<size_t> next_down{0};
  pool_.run([&](int) {
    for (size_t i = next_gate_up++; i < gate_up_items_.size(); i = next_gate_up++)
      gate_up_item(groups, gate_up_items_[i]);
    pool_.barrier();
    if (inner_format_ == RowFormat::kInt8) {
      for (int64_t r = next_row++; r < total; r = next_row++) {
        const std::byte* row = inner_f32_.data() + r * row_bytes(RowFormat::kF32, inner_);
        kernels_.encode_row(RowFormat::kInt8, reinterpret_cast<const float*>(row), inner_,
                            inner_rows_[static_cast<size_t>(r)]);
      }
      pool_.barrier();
    }
    for (size_t i = next_down++; i < down_items_.size(); i = next_down++)
      down_item(groups, down_items_[i]);
  });
  weight_bytes_read_ +=
      static_cast<int64_t>(gate_up_items_.size()) *
          panel_bytes(weights.gate_up.format, weights.gate_up.k) +
      static_cast<int64_t>(down_items_.size()) * panel_bytes(weights.down.format, weights.down.k);
}

void reference_ffn(const FfnWeights& weights,
                   RowFormat in_format,
                   const std::byte* in,
                   std::span<float> out) {
  const PackedMatrix& gate_up = weights.gate_up;
  std::vector<float> x(static_cast<size_t>(gate_up.k));
  reference_decode_row(in_format, in, x);
  const auto dot = [](const PackedMatrix& w, int64_t row, std::span<const double> v) {
    double sum = 0;
    for (int64_t k = 0; k < w.k; ++k)
      sum += v[static_cast<size_t>(k)] * double{unpack_value(w, row, k)};
    return sum;
  };
  const std::vector<double> x_wide(x.begin(), x.end());
  std::vector<double> inner(static_cast<size_t>(inner_of(weights)));
  for (int64_t i = 0; i < inner_of(weights); ++i) {
    const int64_t row = i / kHalf * kPanelCols + i % kHalf;
    const double gate = dot(gate_up, row, x_wide);
    inner[static_cast<size_t>(i)] =
        gate / (1 + std::exp(-gate)) * dot(gate_up, row + kHalf, x_wide);
  }
  for (int64_t c = 0; c < weights.down.n; ++c)
    out[static_cast<size_t>(c)] = static_cast<float>(dot(weights.down, c, inner));
}

}  // namespace wideep::math
