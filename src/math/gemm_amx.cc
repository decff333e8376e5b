// AMX tiles: rows kBf16 x kBf16 and kFp8 weights (tdpbf16ps), rows kInt8 x kInt8 (tdpbsud). Up to
// 16 rows and the panel's 64 columns are four tiles of sums; a tile of weights is 16 lines of a
// panel (stride 256), a tile of rows is prepared so that it is contiguous.
//
// tdpbf16ps sums the 16 even and the 16 odd inputs of a step of 32 apart and then adds both to the
// sum, which is not the order of vdpbf16ps; so at this level bf16 rows use tiles however few they
// are. The int8 sums are exact: few rows take the vector kernel.
#include "math/amx_tiles-inl.h"
#include "math/fp8_vbmi-inl.h"
#include "math/kernel_tables.h"
#include "math/vec_avx512-inl.h"

// The generic kernels on those vectors.
#include "math/gemm_table-inl.h"

namespace wideep::math {
namespace {

constexpr int64_t kLineBytes = 256;
constexpr int64_t kStepBytes = 16 * kLineBytes;  // weights of one step, 64 columns
constexpr int64_t kBlockSteps = 8;               // 32 KiB of weights stay in L1
constexpr int64_t kInt8VectorRows = 4;           // up to here vectors are as fast

// Rows are cut into blocks of one height, the least that covers them in ceil(n / 16) blocks; the
// last one may hang over.
struct RowBlocks {
  int64_t count;
  int64_t height;
};

inline RowBlocks row_blocks(int64_t num_rows) {
  const int64_t count = (num_rows + kTileRows - 1) / kTileRows;
  return {.count = count, .height = count == 0 ? 0 : (num_rows + count - 1) / count};
}

// Tiles 0-3: sums, 4: rows, 5-7: weights.
inline void configure(int64_t height) {
  configure_tiles(5, height);
}

// From one row of sums to the next.
constexpr size_t kSumBytes = kPanelCols * 4;

inline void load_sums(const float* from) {
  _tile_loadd(0, from, kSumBytes);
  _tile_loadd(1, from + 16, kSumBytes);
  _tile_loadd(2, from + 32, kSumBytes);
  _tile_loadd(3, from + 48, kSumBytes);
}

inline void store_sums(float* to) {
  _tile_stored(0, to, kSumBytes);
  _tile_stored(1, to + 16, kSumBytes);
  _tile_stored(2, to + 32, kSumBytes);
  _tile_stored(3, to + 48, kSumBytes);
}

// Loading tiles streams memory well by itself; a line in four of the next step helps a little.
inline void prefetch_step(const std::byte* w) {
  for (int64_t offset = 0; offset < kStepBytes; offset += kLineBytes)
    prefetch_l2(w + offset);
}

// While blocks of rows find their weights in L1, memory may begin with the next block; more lines
// than this hold up the loads of tiles (measured: 4 gain a tenth, 16 lose one).
constexpr int64_t kLinesPerStep = 4;

inline void prefetch_some(const std::byte* w) {
  for (int64_t line = 0; line < kLinesPerStep; ++line)
    prefetch_l2(w + line * kCacheLine);
}

// One step: 64 bytes of each row (32 bf16 or 64 int8) x 64 columns.
inline void bf16_step(const std::byte* rows, const std::byte* w) {
  _tile_loadd(4, rows, kTileBytes);
  _tile_loadd(5, w, kLineBytes);
  _tile_dpbf16ps(0, 4, 5);
  _tile_loadd(6, w + 64, kLineBytes);
  _tile_dpbf16ps(1, 4, 6);
  _tile_loadd(7, w + 128, kLineBytes);
  _tile_dpbf16ps(2, 4, 7);
  _tile_loadd(5, w + 192, kLineBytes);
  _tile_dpbf16ps(3, 4, 5);
}

inline void int8_step(const std::byte* rows, const std::byte* w) {
  _tile_loadd(4, rows, kTileBytes);
  _tile_loadd(5, w, kLineBytes);
  _tile_dpbsud(0, 4, 5);
  _tile_loadd(6, w + 64, kLineBytes);
  _tile_dpbsud(1, 4, 6);
  _tile_loadd(7, w + 128, kLineBytes);
  _tile_dpbsud(2, 4, 7);
  _tile_loadd(5, w + 192, kLineBytes);
  _tile_dpbsud(3, 4, 5);
}

using Step = void (*)(const std::byte*, const std::byte*);

// Sums of all inputs into p.out, f32 or the bits of i32. Blocks of steps in the outer loop: their
// weights stay in L1 while all blocks of rows pass.
template <Step kStep>
inline void tile_sums(const PanelProduct& p, int64_t row_bytes) {
  const RowBlocks blocks = row_blocks(p.num_rows);
  alignas(64) float overhang[kTileRows * kPanelCols];
  const int64_t steps = row_bytes / kTileBytes;
  const int64_t block_steps = blocks.count == 1 ? steps : kBlockSteps;
  for (int64_t begin = 0; begin < steps; begin += block_steps) {
    const int64_t count = least(block_steps, steps - begin);
    const std::byte* next_block = p.panel + (begin + block_steps) * kStepBytes;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t first = b * blocks.height;
      const bool hangs_over = first + blocks.height > p.num_rows;
      float* out = hangs_over ? overhang : p.out + first * kPanelCols;
      if (begin == 0) {
        zero_sums();
      } else {
        load_sums(out);
      }
      const std::byte* rows = p.prepared + first * row_bytes + begin * blocks.height * kTileBytes;
      for (int64_t s = 0; s < count; ++s) {
        const std::byte* weights = p.panel + (begin + s) * kStepBytes;
        if (blocks.count == 1) {
          prefetch_step(weights + kStepBytes);
        } else if (b > 0) {
          prefetch_some(next_block + ((b - 1) * count + s) * kLinesPerStep * kCacheLine);
        }
        kStep(rows + s * blocks.height * kTileBytes, weights);
      }
      store_sums(out);
    }
  }
  const int64_t last = (blocks.count - 1) * blocks.height;
  if (last + blocks.height == p.num_rows) return;
  for (int64_t r = last; r < p.num_rows; ++r) {
    for (int64_t c = 0; c < kPanelCols; c += 16)
      Vec::store(p.out + r * kPanelCols + c, Vec::load(overhang + (r - last) * kPanelCols + c));
  }
}

void multiply_bf16(const PanelProduct& p) {
  configure(row_blocks(p.num_rows).height);
  tile_sums<bf16_step>(p, p.kp * 2);
  _tile_release();
}

void multiply_int8_tiles(const PanelProduct& p) {
  configure(row_blocks(p.num_rows).height);
  tile_sums<int8_step>(p, p.kp);
  _tile_release();
  const auto* scales = reinterpret_cast<const float*>(p.scales);
  for (int64_t r = 0; r < p.num_rows; ++r) {
    float* out = p.out + r * kPanelCols;
    const __m512i excess = Vec::set_int(-128 * row_sum(p, r));
    for (int64_t c = 0; c < kPanelCols; c += 16) {
      const __m512i sums = _mm512_add_epi32(IntVec::load(out + c), excess);
      store_scaled(out + c, sums, scales + c, row_scale(p, r));
    }
  }
}

// out = fma(sums, block scale, out) of rows [first, first + count).
inline void add_scaled(
    const PanelProduct& p, const float* sums, int64_t first, int64_t count, int64_t input) {
  const float* scales = reinterpret_cast<const float*>(p.scales) + input / kScaleBlock * 2;
  for (int64_t r = 0; r < count; ++r) {
    float* out = p.out + (first + r) * kPanelCols;
    for (int64_t c = 0; c < kPanelCols; c += 16) {
      const __m512 scale = Vec::broadcast(scales + c / 32);
      const __m512 sum = Vec::load(sums + r * kPanelCols + c);
      Vec::store(out + c,
                 input == 0 ? Vec::mul(sum, scale) : Vec::fma(sum, scale, Vec::load(out + c)));
    }
  }
}

// The next block of fp8 weights becomes bf16 a little at a time, between the products of this one:
// memory, look-ups and tiles then work at once.
struct Expansion {
  const std::byte* codes;
  std::byte* out;
  int64_t lines;  // to do; an input is a line

  void advance(int64_t count) {
    count = least(count, lines);
    expand_fp8_to_bf16(codes, count, out);
    codes += count * kPanelCols;
    out += count * kPanelCols * 2;
    lines -= count;
  }
};

void multiply_fp8(const PanelProduct& p) {
  const RowBlocks blocks = row_blocks(p.num_rows);
  alignas(64) std::byte buffers[2][kScaleBlock * kPanelCols * 2];
  alignas(64) float sums[kTileRows * kPanelCols];
  constexpr int64_t kSteps = kScaleBlock / 32;
  const int64_t lines_per_step = (32 + blocks.count - 1) / blocks.count;
  Expansion({.codes = p.panel, .out = buffers[0], .lines = least(kScaleBlock, p.kp)})
      .advance(kScaleBlock);
  configure(blocks.height);
  for (int64_t begin = 0; begin < p.kp; begin += kScaleBlock) {
    const int64_t next = begin + kScaleBlock;
    const std::byte* weights = buffers[begin / kScaleBlock % 2];
    Expansion expansion{.codes = p.panel + next * kPanelCols,
                        .out = buffers[next / kScaleBlock % 2],
                        .lines = next < p.kp ? least(kScaleBlock, p.kp - next) : 0};
    const int64_t steps = least(kSteps, (p.kp - begin) / 32);
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t first = b * blocks.height;
      const std::byte* rows = p.prepared + first * p.kp * 2 + begin * 2 * blocks.height;
      zero_sums();
      for (int64_t s = 0; s < steps; ++s) {
        expansion.advance(lines_per_step);
        bf16_step(rows + s * blocks.height * kTileBytes, weights + s * kStepBytes);
      }
      store_sums(sums);
      add_scaled(p, sums, first, least(blocks.height, p.num_rows - first), begin);
    }
  }
  _tile_release();
}

bool takes_tiles(const PanelProduct& p) {
  if (p.row_format == RowFormat::kBf16) return true;
  return p.format == WeightFormat::kInt8 && p.num_rows > kInt8VectorRows;
}

void multiply_panel_amx(const PanelProduct& p) {
  if (p.num_rows == 0) return;
  if (!takes_tiles(p)) return multiply_panel(p);
  switch (p.format) {
    case WeightFormat::kBf16:
      return multiply_bf16(p);
    case WeightFormat::kFp8:
      return multiply_fp8(p);
    default:
      return multiply_int8_tiles(p);
  }
}

int64_t tile_row_bytes(const PanelProduct& p) {
  return p.row_format == RowFormat::kBf16 ? p.kp * 2 : p.kp;
}

int64_t prepared_bytes_amx(const PanelProduct& p) {
  if (!takes_tiles(p)) return prepared_bytes(p);
  const RowBlocks blocks = row_blocks(p.num_rows);
  return blocks.count * blocks.height * tile_row_bytes(p);
}

// [blocks][steps][height][64 bytes]; the overhang repeats the last row, its sums are dropped.
void prepare_rows_amx(const PanelProduct& p, std::byte* prepared) {
  if (!takes_tiles(p)) return prepare_rows(p, prepared);
  const RowBlocks blocks = row_blocks(p.num_rows);
  const int64_t row_bytes = tile_row_bytes(p);
  for (int64_t first = 0; first < p.num_rows; first += blocks.height) {
    const std::byte* rows[kTileRows];
    for (int64_t r = 0; r < blocks.height; ++r)
      rows[r] = p.rows[least(first + r, p.num_rows - 1)];
    for (int64_t offset = 0; offset < row_bytes; offset += kTileBytes) {
      for (int64_t r = 0; r < blocks.height; ++r) {
        _mm512_store_si512(prepared, _mm512_loadu_si512(rows[r] + offset));
        prepared += kTileBytes;
      }
    }
  }
}

}  // namespace

namespace amx {

void add_gemm(Kernels& table) {
  table.multiply_panel = multiply_panel_amx;
  table.prepared_bytes = prepared_bytes_amx;
  table.prepare_rows = prepare_rows_amx;
}

}  // namespace amx
}  // namespace wideep::math
