#include "math/expanded_attention.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rounding.h"
#include "math/attention_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace wideep::math {
namespace {

// Row tiles that one call of the kernels takes, at most.
constexpr int64_t kTilesMax = 32;
// Cached rows that are expanded at once: their latents and products stay in L2.
constexpr int64_t kExpandRows = 128;

// How the kernels see one expanded head: [key, value] of each position, each part at a line.
AttentionShape head_shape(const ExpandedShape& shape) {
  const int64_t line = 64 / cache_value_bytes(shape.format);
  AttentionShape head;
  head.format = shape.format;
  head.key_width = shape.key_width();
  head.value_width = shape.value_width;
  head.value_offset = round_up(head.key_width, line);
  head.token_values = head.value_offset + round_up(head.value_width, line);
  head.scale = shape.scale;
  return head;
}

RowFormat row_format(CacheFormat format) {
  return format == CacheFormat::kF32 ? RowFormat::kF32 : RowFormat::kBf16;
}

// Consecutive queries of a chunk for one head: the work of one thread.
struct Slice {
  const AttentionChunk& chunk;
  int64_t head = 0;
  int64_t first = 0;  // query of the chunk
  int64_t count = 0;

  int64_t position(int64_t query) const { return chunk.position + first + query; }
};

// One thread's memory.
struct Scratch {
  std::byte* queries = nullptr;   // packed, of one call
  std::byte* work = nullptr;      // the kernels'
  std::byte* expanded = nullptr;  // [512][token_values] of one head
  std::byte* latents = nullptr;   // [kExpandRows] rows, if the cached ones need padding
  float* products = nullptr;      // [kExpandRows][widest part]
  float* sums = nullptr;          // per row tile of a slice: max [16], sum [16]
  std::array<const std::byte*, kExpandRows> rows{};
};

}  // namespace

class ExpandedAttention::Engine {
 public:
  Engine(ThreadPool& pool,
         const Kernels& kernels,
         const ExpandedShape& shape,
         int64_t block_tokens,
         int64_t queries_max);
  void forward(const ExpansionWeights& weights, std::span<const AttentionChunk> chunks);

 private:
  // Queries [first, first + count) of a slice that one call of the kernels takes, and which of the
  // partitions that go into their results this one is.
  struct Queries {
    int64_t first = 0;
    int64_t count = 0;
    PartitionTurn turn;
  };

  void check(const ExpansionWeights& weights) const;
  void run(const ExpansionWeights& weights, const Slice& slice, Scratch& scratch);
  void expand(const ExpansionWeights& weights, const Slice& slice, int64_t start, Scratch& s);
  void expand_part(const PackedMatrix& w, const Rows& latents, std::byte* out, Scratch& s);
  void attend_all(const Slice& slice, int64_t start, Scratch& scratch);
  void attend(const Slice& slice, Queries queries, int64_t start, Scratch& scratch);
  void attend_alone(const Slice& slice, Queries query, int64_t start, Scratch& scratch);
  void attend_tiles(const Slice& slice,
                    Queries queries,
                    int64_t start,
                    std::span<RowTile> tiles,
                    Scratch& scratch);
  CachedPartition view(int64_t count, const Scratch& scratch) const;
  bool is_poisoned(const Slice& slice, int64_t start, const Scratch& scratch) const;
  const std::byte* latent_row(const AttentionChunk& chunk, int64_t position) const;

  ThreadPool& pool_;
  const Kernels& kernels_;
  const ExpandedShape shape_;
  const AttentionShape head_;
  const AttentionKernels& attention_;
  const int64_t block_tokens_;
  const int64_t queries_max_;
  const int64_t value_bytes_;
  // Kernels read rows up to a multiple of 64 values: cached ones serve as they are, or are copied.
  const bool copies_latents_;
  AlignedBuffer memory_;
  std::vector<Scratch> scratch_;  // per thread
};

ExpandedAttention::ExpandedAttention(ThreadPool& pool,
                                     const Kernels& kernels,
                                     const ExpandedShape& shape,
                                     int64_t block_tokens,
                                     int64_t queries_max)
    : engine_(std::make_unique<Engine>(pool, kernels, shape, block_tokens, queries_max)) {}

ExpandedAttention::~ExpandedAttention() = default;

void ExpandedAttention::forward(const ExpansionWeights& weights,
                                std::span<const AttentionChunk> chunks) {
  engine_->forward(weights, chunks);
}

ExpandedAttention::Engine::Engine(ThreadPool& pool,
                                  const Kernels& kernels,
                                  const ExpandedShape& shape,
                                  int64_t block_tokens,
                                  int64_t queries_max)
    : pool_(pool),
      kernels_(kernels),
      shape_(shape),
      head_(head_shape(shape)),
      attention_(attention_kernels(kernels.isa, head_)),
      block_tokens_(block_tokens),
      queries_max_(queries_max),
      value_bytes_(cache_value_bytes(shape.format)),
      copies_latents_(shape.latent_width % 64 != 0) {
  WD_CHECK(block_tokens > 0 && block_tokens % kAttentionTile == 0);
  WD_CHECK(shape.num_heads > 0 && shape.value_width > 0 && shape.key_width() > 0);
  WD_CHECK(shape.latent_width + shape.rope_width <= shape.token_values);
  WD_CHECK(attention_.tiles_max <= kTilesMax);
  const int64_t num_tiles = divide_up(queries_max, kRowTile);
  const int64_t latent_bytes = row_bytes(row_format(shape.format), shape.latent_width);
  const std::array<int64_t, 6> bytes = {
      round_up(attention_.query_bytes(head_), 64) * attention_.tiles_max,
      round_up(attention_.work_bytes(head_), 64),
      kAttentionPartition * head_.token_values * value_bytes_,
      copies_latents_ ? kExpandRows * latent_bytes : 0,
      kExpandRows * round_up(std::max(shape.nope_width, shape.value_width) * 4, 64),
      num_tiles * 2 * kRowTile * 4};
  int64_t stride = 4096;  // threads are a page apart: prefetches do not reach the neighbour
  for (const int64_t part : bytes)
    stride += part;
  stride = round_up(stride, 4096);
  memory_ = AlignedBuffer(static_cast<size_t>(stride * pool.num_threads()));
  memory_.prefault();
  for (int64_t thread = 0; thread < pool.num_threads(); ++thread) {
    std::byte* next = memory_.data() + thread * stride;
    Scratch& s = scratch_.emplace_back();
    s.queries = next;
    s.work = next += bytes[0];
    s.expanded = next += bytes[1];
    s.latents = next += bytes[2];
    s.products = reinterpret_cast<float*>(next += bytes[3]);
    s.sums = reinterpret_cast<float*>(next += bytes[4]);
  }
}

// A slice is a chunk's queries for one head. Where that leaves threads without work the queries are
// cut too: the same rows are then expanded more than once, by threads that had nothing to do.
void ExpandedAttention::Engine::forward(const ExpansionWeights& weights,
                                        std::span<const AttentionChunk> chunks) {
  if (chunks.empty()) return;
  check(weights);
  check_chunks(chunks, block_tokens_, queries_max_);
  const int64_t num_slices = std::ssize(chunks) * shape_.num_heads;
  const int64_t parts = std::max<int64_t>(1, pool_.num_threads() / num_slices);
  pool_.for_each(num_slices * parts, [&](int64_t item, int thread) {
    const AttentionChunk& chunk = chunks[static_cast<size_t>(item / parts / shape_.num_heads)];
    const int64_t part = item % parts;
    const int64_t step = divide_up(chunk.count, parts);
    const int64_t first = std::min(chunk.count, part * step);
    const Slice slice{.chunk = chunk,
                      .head = item / parts % shape_.num_heads,
                      .first = first,
                      .count = std::min(step, chunk.count - first)};
    if (slice.count > 0) run(weights, slice, scratch_[static_cast<size_t>(thread)]);
  });
}

void ExpandedAttention::Engine::check(const ExpansionWeights& weights) const {
  WD_CHECK(std::ssize(weights.keys) == shape_.num_heads);
  WD_CHECK(std::ssize(weights.values) == shape_.num_heads);
  WD_CHECK(weights.keys.front().n == shape_.nope_width);
  WD_CHECK(weights.values.front().n == shape_.value_width);
}

void ExpandedAttention::Engine::run(const ExpansionWeights& weights,
                                    const Slice& slice,
                                    Scratch& scratch) {
  const int64_t end = slice.position(slice.count);
  for (int64_t start = 0; start < end; start += kAttentionPartition) {
    expand(weights, slice, start, scratch);
    attend_all(slice, start, scratch);
  }
}

// Keys and values of the partition's positions that the slice can see.
void ExpandedAttention::Engine::expand(const ExpansionWeights& weights,
                                       const Slice& slice,
                                       int64_t start,
                                       Scratch& s) {
  const auto head = static_cast<size_t>(slice.head);
  const int64_t end = std::min(slice.position(slice.count), start + kAttentionPartition);
  const int64_t expanded_bytes = head_.token_values * value_bytes_;
  const int64_t latent_bytes = row_bytes(row_format(shape_.format), shape_.latent_width);
  for (int64_t first = start; first < end; first += kExpandRows) {
    const int64_t count = std::min(kExpandRows, end - first);
    std::byte* out = s.expanded + (first - start) * expanded_bytes;
    for (int64_t i = 0; i < count; ++i) {
      const std::byte* latent = latent_row(slice.chunk, first + i);
      std::memcpy(out + i * expanded_bytes + shape_.nope_width * value_bytes_,
                  latent + shape_.latent_width * value_bytes_,
                  static_cast<size_t>(shape_.rope_width * value_bytes_));
      if (copies_latents_) {  // the padding of the copy is zero from the start
        std::memcpy(s.latents + i * latent_bytes, latent,
                    static_cast<size_t>(shape_.latent_width * value_bytes_));
        latent = s.latents + i * latent_bytes;
      }
      s.rows[static_cast<size_t>(i)] = latent;
    }
    const Rows latents{.format = row_format(shape_.format),
                       .cols = shape_.latent_width,
                       .pointers = std::span(s.rows).first(static_cast<size_t>(count))};
    expand_part(weights.keys[head], latents, out, s);
    expand_part(weights.values[head], latents, out + head_.value_offset * value_bytes_, s);
  }
}

// W c of some rows, rounded to the cache's format, to `out` and the places behind it.
void ExpandedAttention::Engine::expand_part(const PackedMatrix& w,
                                            const Rows& latents,
                                            std::byte* out,
                                            Scratch& s) {
  const auto count = static_cast<int64_t>(latents.pointers.size());
  const MatrixView<float> products{s.products, count, w.n, round_up(w.n, 16)};
  gemm(kernels_, w, latents, {.begin = 0, .end = w.num_panels()}, products);
  for (int64_t i = 0; i < count; ++i, out += head_.token_values * value_bytes_) {
    if (shape_.format == CacheFormat::kF32) {
      std::memcpy(out, products.row(i).data(), static_cast<size_t>(w.n * 4));
    } else {
      kernels_.to_bf16(products.row(i).data(), w.n, reinterpret_cast<uint16_t*>(out));
    }
  }
}

void ExpandedAttention::Engine::attend_all(const Slice& slice, int64_t start, Scratch& scratch) {
  const int64_t step = attention_.tiles_max * kRowTile;
  const bool poisoned = is_poisoned(slice, start, scratch);
  for (int64_t first = 0; first < slice.count; first += step) {
    const int64_t count = std::min(step, slice.count - first);
    const int64_t last = slice.position(first + count - 1);
    if (last < start) continue;
    // Queries that have seen all they can are finished with the last of their call.
    const PartitionTurn turn{.first = start == 0, .last = last < start + kAttentionPartition};
    if (!poisoned) {
      attend(slice, {first, count, turn}, start, scratch);
      continue;
    }
    for (int64_t query = first; query < first + count; ++query)
      attend_alone(slice, {query, 1, turn}, start, scratch);
  }
}

// A row's zero probabilities may meet the values of later queries: see attention.cc.
bool ExpandedAttention::Engine::is_poisoned(const Slice& slice,
                                            int64_t start,
                                            const Scratch& scratch) const {
  const int64_t end = std::min(slice.position(slice.count), start + kAttentionPartition);
  const int64_t begin = std::max(start, slice.position(0) + 1);
  return begin < end && !attention_.values_are_finite(head_, view(end - start, scratch),
                                                      begin - start, end - start);
}

void ExpandedAttention::Engine::attend(const Slice& slice,
                                       Queries queries,
                                       int64_t start,
                                       Scratch& scratch) {
  std::array<RowTile, kTilesMax> tiles;
  size_t num_tiles = 0;
  for (int64_t first = 0; first < queries.count; first += kRowTile) {
    RowTile& tile = tiles[num_tiles++];
    tile.num_rows = std::min(kRowTile, queries.count - first);
    tile.max = scratch.sums + (queries.first + first) / kRowTile * 2 * kRowTile;
    tile.sum = tile.max + kRowTile;
  }
  attend_tiles(slice, queries, start, std::span(tiles).first(num_tiles), scratch);
}

// One query with nothing behind it in sight; its sums have their place in a tile with others.
void ExpandedAttention::Engine::attend_alone(const Slice& slice,
                                             Queries query,
                                             int64_t start,
                                             Scratch& scratch) {
  float* max = scratch.sums + query.first / kRowTile * 2 * kRowTile + query.first % kRowTile;
  float* sum = max + kRowTile;
  alignas(64) std::array<float, 2 * kRowTile> sums{};
  sums[0] = *max;
  sums[kRowTile] = *sum;
  RowTile tile{.num_rows = 1, .max = sums.data(), .sum = sums.data() + kRowTile};
  attend_tiles(slice, query, start, {&tile, 1}, scratch);
  *max = sums[0];
  *sum = sums[kRowTile];
}

// `tiles` have their rows counted and their sums placed.
void ExpandedAttention::Engine::attend_tiles(const Slice& slice,
                                             Queries queries,
                                             int64_t start,
                                             std::span<RowTile> tiles,
                                             Scratch& scratch) {
  const int64_t query_bytes = round_up(attention_.query_bytes(head_), 64);
  int64_t query = queries.first;
  std::byte* packed = scratch.queries;
  for (RowTile& tile : tiles) {
    std::array<const float*, kRowTile> rows{};
    for (int64_t r = 0; r < tile.num_rows; ++r, ++query) {
      const int64_t row = (slice.first + query) * shape_.num_heads + slice.head;
      const int64_t seen = slice.position(query) + 1 - start;
      rows[static_cast<size_t>(r)] = slice.chunk.q + row * head_.key_width;
      tile.out[static_cast<size_t>(r)] = slice.chunk.out + row * head_.value_width;
      tile.visible[static_cast<size_t>(r)] =
          static_cast<int32_t>(std::clamp(seen, int64_t{0}, kAttentionPartition));
    }
    attention_.pack_queries(head_, {rows.data(), static_cast<size_t>(tile.num_rows)}, packed);
    tile.queries = packed;
    packed += query_bytes;
  }
  const int64_t seen = tiles.back().visible[static_cast<size_t>(tiles.back().num_rows - 1)];
  attention_.attend(head_, view(std::max<int64_t>(1, seen), scratch), tiles, queries.turn,
                    scratch.work);
}

CachedPartition ExpandedAttention::Engine::view(int64_t count, const Scratch& scratch) const {
  CachedPartition view{};
  view.count = count;
  view.token_bytes = head_.token_values * value_bytes_;
  view.value_bytes = head_.value_offset * value_bytes_;
  for (int64_t t = 0; t < kTilesPerPartition; ++t)
    view.tiles[static_cast<size_t>(t)] = scratch.expanded + t * kAttentionTile * view.token_bytes;
  return view;
}

const std::byte* ExpandedAttention::Engine::latent_row(const AttentionChunk& chunk,
                                                       int64_t position) const {
  return chunk.blocks[static_cast<size_t>(position / block_tokens_)] +
         position % block_tokens_ * shape_.token_values * value_bytes_;
}

}  // namespace wideep::math
