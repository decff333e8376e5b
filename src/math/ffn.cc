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

constexpr int64_t kHalf = kPanelCols / 2;
using Tile = std::array<float, kRowBlockMax * kPanelCols>;

int64_t inner_of(const FfnWeights& weights) {
  return weights.gate_up.n / 2;
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
      inner_rows_(static_cast<size_t>(rows_max)),
      panels_left_(static_cast<size_t>(rows_max)),
      prepared_(static_cast<size_t>(pool.num_threads())),
      gate_up_work_(pool.num_threads()),
      down_work_(pool.num_threads()) {
  WD_CHECK(out_format == RowFormat::kF32 || out_format == RowFormat::kBf16);
}

void Ffn::list_items(std::span<const FfnGroup> groups) {
  gate_up_work_.items.clear();
  down_work_.items.clear();
  first_row_.clear();
  int64_t total = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const FfnWeights& w = *groups[g].weights;
    const auto num_rows = static_cast<int64_t>(groups[g].in.size());
    first_row_.push_back(total);
    total += num_rows;
    const auto add_items = [&](const PackedMatrix& matrix, RowFormat format, WorkList& work) {
      const int64_t step = rows_per_block({.format = format, .cols = matrix.k});
      for (int64_t row = 0; row < num_rows; row += step) {
        Item item{.group = static_cast<int32_t>(g),
                  .first_row = static_cast<int32_t>(row),
                  .num_rows = static_cast<int32_t>(std::min(step, num_rows - row))};
        for (; item.panel < matrix.num_panels(); ++item.panel)
          work.items.push_back(item);
      }
    };
    add_items(w.gate_up, input_format_, gate_up_work_);
    add_items(w.down, inner_format_, down_work_);
  }
  WD_CHECK(total <= rows_max_);
  const int64_t bytes = row_bytes(inner_format_, inner_);
  for (int64_t r = 0; r < total; ++r) {
    std::byte* row = inner_storage_.data() + r * bytes;
    inner_rows_[static_cast<size_t>(r)] = row;
    // The padding behind the columns may hold what a call of another shape left there.
    if (inner_ % 64 != 0) std::memset(row, 0, static_cast<size_t>(bytes));
  }
  const FfnWeights& weights = *groups.front().weights;
  for (int64_t r = 0; r < total; ++r) {
    panels_left_[static_cast<size_t>(r)].store(weights.gate_up.num_panels(),
                                               std::memory_order_relaxed);
  }
  // Neighbouring panels of a group share prepared rows.
  gate_up_work_.left.start(gate_up_work_.num_items(), weights.gate_up.num_panels());
  down_work_.left.start(down_work_.num_items(), weights.down.num_panels());
}

std::byte* Ffn::inner_f32(int64_t row) {
  return inner_f32_.data() + row * row_bytes(RowFormat::kF32, inner_);
}

void Ffn::run_items(int thread, WorkList& work, const Phase& phase) {
  alignas(64) Tile tile;
  PreparedRows& prepared = prepared_[static_cast<size_t>(thread)];
  PanelProduct product;
  const Item* last = nullptr;
  for (ItemRange range = work.left.take(thread); range.begin < range.end;
       range = work.left.take(thread)) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const Item& item = work.items[static_cast<size_t>(i)];
      const PackedMatrix& w = phase.weights(item);
      if (last == nullptr || last->group != item.group || last->first_row != item.first_row) {
        product = product_of(w, phase.rows(item));
        prepared.prepare(kernels_, product);
        last = &item;
      }
      set_panel(product, w, item.panel);
      product.out = tile.data();
      kernels_.multiply_panel(product);
      phase.finish(item, tile.data());
    }
  }
}

void Ffn::activate(const Item& item, float* tile) {
  const int64_t first_col = item.panel * kHalf;
  const auto cols = static_cast<size_t>(std::min(kHalf, inner_ - first_col));
  const int64_t first = first_row_[static_cast<size_t>(item.group)] + item.first_row;
  const bool quantised_later = inner_format_ == RowFormat::kInt8;
  for (int64_t r = 0; r < item.num_rows; ++r) {
    float* gate = tile + r * kPanelCols;
    kernels_.silu_mul(gate, gate + kHalf, static_cast<int64_t>(cols), gate);
    std::byte* row =
        quantised_later ? inner_f32(first + r) : inner_rows_[static_cast<size_t>(first + r)];
    write_cols(kernels_, quantised_later ? RowFormat::kF32 : inner_format_, {gate, cols}, first_col,
               row);
  }
}

void Ffn::finish_gate_up(const Item& item, float* tile) {
  activate(item, tile);
  if (inner_format_ != RowFormat::kInt8) return;
  const int64_t first = first_row_[static_cast<size_t>(item.group)] + item.first_row;
  // Released by each panel of these rows, acquired by the last: its thread sees the whole rows.
  if (panels_left_[static_cast<size_t>(first)].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  for (int64_t r = first; r < first + item.num_rows; ++r) {
    kernels_.encode_row(RowFormat::kInt8, reinterpret_cast<const float*>(inner_f32(r)), inner_,
                        inner_rows_[static_cast<size_t>(r)]);
  }
}

void Ffn::finish_down(std::span<const FfnGroup> groups, const Item& item, const float* tile) {
  const FfnGroup& group = groups[static_cast<size_t>(item.group)];
  const int64_t first_col = item.panel * kPanelCols;
  const auto cols = static_cast<size_t>(std::min(kPanelCols, group.weights->down.n - first_col));
  alignas(64) std::byte line[kPanelCols * sizeof(float)];
  for (int64_t r = 0; r < item.num_rows; ++r) {
    const auto row = static_cast<size_t>(item.first_row + r);
    const std::span<const float> values{tile + r * kPanelCols, cols};
    if (group.out_is_far.empty() || group.out_is_far[row] == 0 || cols < kPanelCols) {
      write_cols(kernels_, out_format_, values, first_col, group.out[row]);
      continue;
    }
    const int64_t width = out_format_ == RowFormat::kF32 ? 4 : 2;
    write_cols(kernels_, out_format_, values, 0, line);
    kernels_.stream(line, kPanelCols * width, group.out[row] + first_col * width);
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
  const auto group_of = [&](const Item& item) -> const FfnGroup& {
    return groups[static_cast<size_t>(item.group)];
  };
  // Named, because a Phase only borrows them.
  const auto gate_up_of = [&](const Item& item) -> const PackedMatrix& {
    return group_of(item).weights->gate_up;
  };
  const auto down_of = [&](const Item& item) -> const PackedMatrix& {
    return group_of(item).weights->down;
  };
  const auto inputs_of = [&](const Item& item) {
    const Rows all{
        .format = input_format_, .cols = weights.gate_up.k, .pointers = group_of(item).in};
    return all.slice(item.first_row, item.num_rows);
  };
  const auto inner_of_item = [&](const Item& item) {
    const Rows all{.format = inner_format_, .cols = inner_, .pointers = inner_rows_};
    return all.slice(first_row_[static_cast<size_t>(item.group)] + item.first_row, item.num_rows);
  };
  const auto write_inner = [&](const Item& item, float* tile) { finish_gate_up(item, tile); };
  const auto write_out = [&](const Item& item, float* tile) { finish_down(groups, item, tile); };
  pool_.run([&](int thread) {
    run_items(thread, gate_up_work_,
              {.weights = gate_up_of, .rows = inputs_of, .finish = write_inner});
    pool_.barrier();
    run_items(thread, down_work_, {.weights = down_of, .rows = inner_of_item, .finish = write_out});
    kernels_.stream_fence();
  });
  weight_bytes_read_ +=
      gate_up_work_.num_items() * panel_bytes(weights.gate_up.format, weights.gate_up.k) +
      down_work_.num_items() * panel_bytes(weights.down.format, weights.down.k);
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
