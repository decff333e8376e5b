#include "math/attention.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rounding.h"
#include "math/attention_kernels.h"
#include "math/attention_plan.h"

#include <algorithm>
#include <array>
#include <vector>

namespace wideep::math {
namespace {

// Row tiles of a group at most; kernels may take fewer.
constexpr int64_t kTilesMax = 32;
// The same where partitions are spread over threads and partial results kept.
constexpr int64_t kSplitTilesMax = 8;
// Partial results (of one group and partition) kept at once, per thread.
constexpr int64_t kSlotsPerThread = 4;
// Work items per thread below which the balance between threads suffers.
constexpr int64_t kItemsPerThread = 4;

// One partition of a group; group -1: none.
struct Item {
  int64_t group = -1;
  int64_t partition = 0;
};

// One thread's memory.
struct Scratch {
  std::byte* queries = nullptr;
  std::byte* work = nullptr;
  int64_t packed_group = -1;  // whose queries are packed
};

}  // namespace

class Attention::Engine {
 public:
  Engine(ThreadPool& pool,
         const AttentionKernels& kernels,
         const AttentionShape& shape,
         int64_t block_tokens,
         int64_t queries_max);
  void forward(std::span<const AttentionChunk> chunks);

 private:
  using Group = AttentionGroup;
  using Tiles = std::array<RowTile, kTilesMax>;

  // Results of one row tile: max [16], sum [16], out [16][value_width].
  int64_t result_floats() const { return kRowTile * (2 + shape_.value_width); }

  bool choose_groups();
  void separate_poisoned_queries();
  bool is_poisoned(int64_t chunk_index) const;
  bool goes_on(int64_t item, int64_t num_items) const;
  void run_group(int64_t group_index, int64_t next_group, Scratch& scratch);
  void run_split();
  void run_wave(std::span<const Item> wave);
  void run_item(const Item& item, const Item& next_item, float* slot, Scratch& scratch);
  void merge_wave(std::span<const Item> wave, int64_t group_index);

  CachedPartition cached(const Item& item) const;
  void pack_queries(int64_t group_index, Scratch& scratch) const;
  static PartitionTurn turn_of(const Group& group, int64_t partition);
  RowTile result_tile(const Group& group, int64_t tile, int64_t partition);
  RowTile partial_tile(const Group& group, int64_t tile, int64_t partition, float* slot) const;
  float* slot(int64_t index);

  ThreadPool& pool_;
  const AttentionKernels& kernels_;
  const AttentionShape shape_;
  AttentionPlan plan_;
  const int64_t split_tiles_max_;
  const int64_t num_slots_;
  AlignedBuffer memory_;  // of all threads
  AlignedBuffer sums_;    // per row tile of a call: max [16], sum [16]
  AlignedBuffer slots_;
  std::vector<Scratch> scratch_;  // per thread
  std::vector<Item> items_;
};

Attention::Attention(ThreadPool& pool,
                     const Kernels& kernels,
                     const AttentionShape& shape,
                     int64_t block_tokens,
                     int64_t queries_max)
    : engine_(std::make_unique<Engine>(
          pool, attention_kernels(kernels.isa, shape), shape, block_tokens, queries_max)) {}

Attention::~Attention() = default;

void Attention::forward(std::span<const AttentionChunk> chunks) {
  engine_->forward(chunks);
}

Attention::Engine::Engine(ThreadPool& pool,
                          const AttentionKernels& kernels,
                          const AttentionShape& shape,
                          int64_t block_tokens,
                          int64_t queries_max)
    : pool_(pool),
      kernels_(kernels),
      shape_(shape),
      plan_(shape, block_tokens, queries_max),
      split_tiles_max_(std::min(kSplitTilesMax, kernels.tiles_max)),
      num_slots_(kSlotsPerThread * pool.num_threads()) {
  WD_CHECK(kernels.tiles_max <= kTilesMax);
  const int64_t queries = round_up(kernels.query_bytes(shape), 64) * kernels.tiles_max;
  // Threads are a page apart, so that prefetches do not reach into each other's memory.
  const int64_t stride = round_up(queries + kernels.work_bytes(shape), 4096) + 4096;
  memory_ = AlignedBuffer(static_cast<size_t>(stride * pool.num_threads()));
  for (int64_t thread = 0; thread < pool.num_threads(); ++thread) {
    std::byte* base = memory_.data() + thread * stride;
    scratch_.push_back({.queries = base, .work = base + queries});
  }
  sums_ = AlignedBuffer(static_cast<size_t>(plan_.tiles_max() * 2 * kRowTile * 4));
  slots_ = AlignedBuffer(static_cast<size_t>(num_slots_ * split_tiles_max_ * result_floats() * 4));
  memory_.prefault();
  sums_.prefault();
  slots_.prefault();
  items_.reserve(static_cast<size_t>(num_slots_));
}

void Attention::Engine::forward(std::span<const AttentionChunk> chunks) {
  plan_.start(chunks);
  if (chunks.empty()) return;
  separate_poisoned_queries();
  for (Scratch& scratch : scratch_)
    scratch.packed_group = -1;
  if (!choose_groups()) {
    run_split();
    return;
  }
  // Later queries see more: the longest groups first.
  const int64_t num_groups = std::ssize(plan_.groups());
  pool_.for_each(num_groups, [&](int64_t item, int thread) {
    const int64_t group = num_groups - 1 - item;
    const int64_t next = goes_on(item, num_groups) ? group - 1 : -1;
    run_group(group, next, scratch_[static_cast<size_t>(thread)]);
  });
}

// Cuts the rows into the largest groups (they share what is read and packed) that still keep all
// threads busy. With many rows, each group is one thread's, which walks the partitions in order:
// true. With few rows, or one long sequence among short ones, the partitions of a group are spread
// over the threads: false.
bool Attention::Engine::choose_groups() {
  const int64_t num_threads = pool_.num_threads();
  for (int64_t tiles = kernels_.tiles_max;; tiles /= 2) {
    plan_.cut(tiles);
    if (num_threads == 1 || plan_.largest_cost() * 2 * num_threads <= plan_.total_cost())
      return true;
    int64_t num_items = 0;
    for (const Group& group : plan_.groups())
      num_items += group.num_partitions();
    const bool enough = num_items >= kItemsPerThread * num_threads && tiles <= split_tiles_max_;
    if (enough || tiles == 1) return false;
  }
}

// A row's zero probabilities may meet the values of later queries of its chunk. Zero times a value
// vanishes unless the value is not finite: then the queries of that chunk are kept apart, so that
// no query depends on what comes after it.
void Attention::Engine::separate_poisoned_queries() {
  const auto has_many = [](const AttentionChunk& chunk) { return chunk.count > 1; };
  if (std::ranges::none_of(plan_.chunks(), has_many)) return;
  pool_.for_each(std::ssize(plan_.chunks()), [&](int64_t chunk, int) {
    if (is_poisoned(chunk)) plan_.keep_queries_apart(chunk);
  });
}

bool Attention::Engine::is_poisoned(int64_t chunk_index) const {
  const AttentionChunk& chunk = plan_.chunks()[static_cast<size_t>(chunk_index)];
  const int64_t end = chunk.position + chunk.count;
  for (int64_t position = chunk.position + 1; position < end;) {
    const int64_t partition = position / kAttentionPartition;
    const int64_t start = partition * kAttentionPartition;
    const int64_t stop = std::min(end, start + kAttentionPartition);
    for (int32_t head = 0; head < shape_.num_kv_heads; ++head) {
      const Group group{
          .chunk = static_cast<int32_t>(chunk_index), .kv_head = head, .num_positions = stop};
      const CachedPartition view = plan_.cached(group, partition);
      if (!kernels_.values_are_finite(shape_, view, position - start, stop - start)) return true;
    }
    position = stop;
  }
  return false;
}

// Whether the thread that takes an item probably takes the one behind it too: threads begin with
// equal shares of a list.
bool Attention::Engine::goes_on(int64_t item, int64_t num_items) const {
  const int64_t threads = pool_.num_threads();
  return item + 1 < num_items && item * threads / num_items == (item + 1) * threads / num_items;
}

void Attention::Engine::run_group(int64_t group_index, int64_t next_group, Scratch& scratch) {
  const Group& group = plan_.groups()[static_cast<size_t>(group_index)];
  pack_queries(group_index, scratch);
  Tiles tiles;
  const int64_t end = group.num_partitions();
  const Item after = {.group = next_group, .partition = 0};
  std::array<CachedPartition, 2> turns = {cached({.group = group_index, .partition = 0})};
  for (int64_t partition = 0; partition < end; ++partition) {
    CachedPartition& view = turns[static_cast<size_t>(partition % 2)];
    CachedPartition& next = turns[static_cast<size_t>((partition + 1) % 2)];
    next = cached(partition + 1 < end ? Item{group_index, partition + 1} : after);
    view.next = &next;
    for (int64_t t = 0; t < group.num_tiles(); ++t) {
      tiles[static_cast<size_t>(t)] = result_tile(group, t, partition);
      tiles[static_cast<size_t>(t)].queries = scratch.queries + t * kernels_.query_bytes(shape_);
    }
    kernels_.attend(shape_, view, std::span(tiles).first(static_cast<size_t>(group.num_tiles())),
                    turn_of(group, partition), scratch.work);
  }
}

// A wave of partitions at a time is spread over the threads, then merged in ascending order.
void Attention::Engine::run_split() {
  items_.clear();
  for (int64_t g = 0; g < std::ssize(plan_.groups()); ++g) {
    const Group& group = plan_.groups()[static_cast<size_t>(g)];
    for (int64_t partition = 0; partition < group.num_partitions(); ++partition) {
      items_.push_back({.group = g, .partition = partition});
      if (std::ssize(items_) < num_slots_) continue;
      run_wave(items_);
      items_.clear();
    }
  }
  run_wave(items_);
}

void Attention::Engine::run_wave(std::span<const Item> wave) {
  if (wave.empty()) return;
  pool_.for_each(std::ssize(wave), [&](int64_t index, int thread) {
    const bool known = goes_on(index, std::ssize(wave));
    const Item next = known ? wave[static_cast<size_t>(index + 1)] : Item{};
    run_item(wave[static_cast<size_t>(index)], next, slot(index),
             scratch_[static_cast<size_t>(thread)]);
  });
  const int64_t first_group = wave.front().group;
  pool_.for_each(wave.back().group - first_group + 1,
                 [&](int64_t index, int) { merge_wave(wave, first_group + index); });
}

void Attention::Engine::run_item(const Item& item,
                                 const Item& next_item,
                                 float* slot,
                                 Scratch& scratch) {
  const Group& group = plan_.groups()[static_cast<size_t>(item.group)];
  pack_queries(item.group, scratch);
  Tiles tiles;
  for (int64_t t = 0; t < group.num_tiles(); ++t) {
    tiles[static_cast<size_t>(t)] = partial_tile(group, t, item.partition, slot);
    tiles[static_cast<size_t>(t)].queries = scratch.queries + t * kernels_.query_bytes(shape_);
  }
  CachedPartition view = cached(item);
  const CachedPartition next = cached(next_item);
  view.next = &next;
  kernels_.attend(shape_, view, std::span(tiles).first(static_cast<size_t>(group.num_tiles())), {},
                  scratch.work);
}

// Merges the partial results of one group in this wave into its rows.
void Attention::Engine::merge_wave(std::span<const Item> wave, int64_t group_index) {
  const Group& group = plan_.groups()[static_cast<size_t>(group_index)];
  for (int64_t i = 0; i < std::ssize(wave); ++i) {
    const Item& item = wave[static_cast<size_t>(i)];
    for (int64_t t = 0; t < group.num_tiles() && item.group == group_index; ++t) {
      RowTile result = result_tile(group, t, item.partition);
      kernels_.merge(partial_tile(group, t, item.partition, slot(i)), shape_.value_width,
                     turn_of(group, item.partition), result);
    }
  }
}

PartitionTurn Attention::Engine::turn_of(const Group& group, int64_t partition) {
  return {.first = partition == 0, .last = partition + 1 == group.num_partitions()};
}

// Nothing of nothing.
CachedPartition Attention::Engine::cached(const Item& item) const {
  if (item.group < 0) return {};
  return plan_.cached(plan_.groups()[static_cast<size_t>(item.group)], item.partition);
}

void Attention::Engine::pack_queries(int64_t group_index, Scratch& scratch) const {
  if (scratch.packed_group == group_index) return;
  scratch.packed_group = group_index;
  const Group& group = plan_.groups()[static_cast<size_t>(group_index)];
  const int64_t query_bytes = kernels_.query_bytes(shape_);
  for (int64_t t = 0; t < group.num_tiles(); ++t) {
    std::array<const float*, kRowTile> rows{};
    const int64_t num_rows = std::min(kRowTile, group.num_rows - t * kRowTile);
    for (int64_t r = 0; r < num_rows; ++r)
      rows[static_cast<size_t>(r)] = plan_.query(group, t * kRowTile + r);
    kernels_.pack_queries(shape_, {rows.data(), static_cast<size_t>(num_rows)},
                          scratch.queries + t * query_bytes);
  }
}

// The tile whose rows are the chunk's own output.
RowTile Attention::Engine::result_tile(const Group& group, int64_t tile, int64_t partition) {
  RowTile rows = plan_.tile(group, tile, partition);
  rows.max = reinterpret_cast<float*>(sums_.data()) + (group.first_tile + tile) * 2 * kRowTile;
  rows.sum = rows.max + kRowTile;
  for (int64_t r = 0; r < rows.num_rows; ++r)
    rows.out[static_cast<size_t>(r)] = plan_.out(group, tile * kRowTile + r);
  return rows;
}

// The same rows of one partition alone, in a slot.
RowTile Attention::Engine::partial_tile(const Group& group,
                                        int64_t tile,
                                        int64_t partition,
                                        float* slot) const {
  RowTile rows = plan_.tile(group, tile, partition);
  rows.max = slot + tile * result_floats();
  rows.sum = rows.max + kRowTile;
  for (int64_t r = 0; r < rows.num_rows; ++r)
    rows.out[static_cast<size_t>(r)] = rows.sum + kRowTile + r * shape_.value_width;
  return rows;
}

float* Attention::Engine::slot(int64_t index) {
  return reinterpret_cast<float*>(slots_.data()) + index * split_tiles_max_ * result_floats();
}

}  // namespace wideep::math
