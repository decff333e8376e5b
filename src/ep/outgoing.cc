#include "ep/outgoing.h"

#include "base/check.h"
#include "base/rounding.h"
#include "ep/combine.h"

#include <algorithm>
#include <cstring>
#include <ranges>

namespace wideep::ep {
namespace {

// The candidate whose turn it is.
template <typename Candidates>
SlotAddress in_turn(Candidates&& candidates, int64_t turn) {
  return *std::ranges::next(candidates.begin(), turn % std::ranges::distance(candidates));
}

}  // namespace

Outgoing::Outgoing(Exchange exchange)
    : exchange_(exchange), peers_(static_cast<size_t>(exchange.num_ranks())) {
  const ExchangeShape& shape = exchange.options.shape;
  const auto entries_max = static_cast<size_t>(exchange.layout.entries_max());
  weights_.reserve(entries_max);
  targets_.reserve(entries_max);
  for (Peer& peer : peers_)
    peer.entries.reserve(entries_max);
  encoded_ = AlignedBuffer(static_cast<size_t>(exchange.pool.num_threads() * piece_rows() *
                                               exchange.layout.row_bytes()));
  for (int32_t r = 0; r < exchange.num_ranks(); ++r) {
    has_neighbours_ |= RankId{r} != exchange.rank() &&
                       exchange.fabric.shape().same_node(RankId{r}, exchange.rank());
  }
  for (int64_t t = 0; t < shape.tokens_max; ++t)
    for (int64_t k = 0; k < shape.top_k; ++k)
      result_pointers_.push_back(exchange.fabric.arena().data() + exchange.layout.result(t, k));
  for (const std::vector<RankId>& ranks : exchange.fabric.shape().ranks_by_node()) {
    if (exchange.fabric.shape().same_node(ranks.front(), exchange.rank())) continue;
    remote_nodes_.push_back(
        {.ranks = ranks,
         .region = exchange.layout.region_of(exchange.rank(), ranks.front()),
         .is_wanted = std::vector<uint8_t>(static_cast<size_t>(shape.tokens_max))});
  }
}

Status Outgoing::dispatch(const ExchangeId& id,
                          MatrixView<const float> h,
                          const Routing& routing,
                          int64_t chunk) {
  id_ = id;
  num_tokens_ = h.rows;
  weights_.assign(routing.weights.begin(), routing.weights.end());
  choose_targets(routing);
  exchange_.choice.open(has_neighbours_ ? num_tokens_ * exchange_.layout.row_bytes() : 0,
                        exchange_.stays_in_cache(num_tokens_ * routing.top_k));
  int64_t begin = 0;
  do {
    const int64_t end = std::min(begin + chunk, num_tokens_);
    WD_TRY(send_chunk(h, begin, end));
    begin = end;
  } while (begin < num_tokens_);
  return {};
}

// Who computes which row. Everything is known before anything is sent, so that the first word
// already carries the total.
void Outgoing::choose_targets(const Routing& routing) {
  for (Peer& peer : peers_)
    peer.total = peer.sent = 0;
  targets_.clear();
  for (int64_t i = 0; i < std::ssize(routing.experts); ++i) {
    targets_.push_back(choose(routing.experts[static_cast<size_t>(i)], i / routing.top_k));
    ++peers_[subscript(targets_.back().rank)].total;
  }
  for (int32_t r = 0; r < exchange_.num_ranks(); ++r)
    exchange_.load.add_sent(id_.layer, RankId{r}, peers_[static_cast<size_t>(r)].total);
}

SlotAddress Outgoing::choose(ExpertId expert, int64_t token) const {
  const std::span<const SlotAddress> replicas =
      exchange_.placement.layer(id_.layer).replicas(expert);
  if (replicas.size() == 1) return replicas.front();
  const int64_t turn = token + index(exchange_.rank());
  if (exchange_.options.replicas == ReplicaChoice::kSpread) return in_turn(replicas, turn);
  const auto own = std::ranges::find(replicas, exchange_.rank(), &SlotAddress::rank);
  if (own != replicas.end()) return *own;
  const auto is_near = [&](const SlotAddress& replica) {
    return exchange_.fabric.shape().same_node(replica.rank, exchange_.rank());
  };
  auto near = replicas | std::views::filter(is_near);
  return near.empty() ? in_turn(replicas, turn) : in_turn(near, turn);
}

Status Outgoing::send_chunk(MatrixView<const float> h, int64_t begin, int64_t end) {
  const ExchangeShape& shape = exchange_.options.shape;
  encode_rows(h, begin, end);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t k = 0; k < shape.top_k; ++k) {
      const SlotAddress target = targets_[static_cast<size_t>(t * shape.top_k + k)];
      peers_[subscript(target.rank)].entries.push_back({static_cast<uint32_t>(t),
                                                        static_cast<uint16_t>(index(target.slot)),
                                                        static_cast<uint16_t>(k)});
    }
  }
  for (RemoteNode& node : remote_nodes_)
    WD_TRY(send_rows(node, begin, end));
  WD_TRY(send_lists());
  return send_words();
}

// Rows of a trial that are copied at once: enough for a clock.
int64_t Outgoing::piece_rows() const {
  constexpr int64_t kBytes = 32 << 10;
  return std::max<int64_t>(kBytes / exchange_.layout.row_bytes(), 1);
}

// Into this rank's arena; what others on this node read is written past the caches where that is
// better.
void Outgoing::encode_rows(MatrixView<const float> h, int64_t begin, int64_t end) {
  const ExchangeShape& shape = exchange_.options.shape;
  const bool streams = has_neighbours_ && exchange_.choice.streams();
  const int64_t row_bytes = exchange_.layout.row_bytes();
  std::byte* const arena = exchange_.fabric.arena().data();
  exchange_.pool.run([&](int thread) {
    const int64_t share = divide_up(end - begin, exchange_.pool.num_threads());
    int64_t t = begin + thread * share;
    const int64_t last = std::min(t + share, end);
    if (thread == 0) t = try_both_ways(h, t, last);
    std::byte* const encoded = encoded_.data() + thread * piece_rows() * row_bytes;
    for (; t < last; ++t) {
      std::byte* const row = arena + exchange_.layout.row(t);
      exchange_.kernels.encode_row(shape.formats.dispatch, h.row(t).data(), shape.hidden,
                                   streams ? encoded : row);
      if (streams) exchange_.kernels.stream(encoded, row_bytes, row);
    }
    exchange_.kernels.stream_fence();
  });
}

// In a trial: encodes some pieces of these rows, copies them by either way in turn, and tells how
// long it took. Returns the first row that is left. Thread 0 only.
int64_t Outgoing::try_both_ways(MatrixView<const float> h, int64_t begin, int64_t end) {
  if (!has_neighbours_ || !exchange_.choice.is_trial()) return begin;
  const ExchangeShape& shape = exchange_.options.shape;
  const int64_t row_bytes = exchange_.layout.row_bytes();
  const int64_t rows = std::clamp<int64_t>((end - begin) / 2, 1, piece_rows());
  const int64_t num_pieces = std::min((end - begin) / rows, 2 * StreamChoice::kPieces);
  for (int64_t piece = 0; piece < num_pieces; ++piece) {
    const int64_t first = begin + piece * rows;
    for (int64_t i = 0; i < rows; ++i)
      exchange_.kernels.encode_row(shape.formats.dispatch, h.row(first + i).data(), shape.hidden,
                                   encoded_.data() + i * row_bytes);
    const bool streams = piece % 2 == 0;
    const TimePoint start = exchange_.fabric.clock().now();
    copy_piece(encoded_.data(), rows * row_bytes,
               exchange_.fabric.arena().data() + exchange_.layout.row(first), streams);
    exchange_.kernels.stream_fence();  // part of what it costs
    exchange_.choice.record(streams, rows * row_bytes, exchange_.fabric.clock().now() - start);
  }
  return begin + num_pieces * rows;
}

// Plainly in short parts: memcpy of many bytes is `rep movsb`, which takes lines from another core
// twice as fast as the stores of rows and results do, and would speak too well of writing plainly.
void Outgoing::copy_piece(const std::byte* from, int64_t bytes, std::byte* to, bool streams) const {
  constexpr int64_t kPart = 1 << 10;
  if (streams) return exchange_.kernels.stream(from, bytes, to);
  for (int64_t i = 0; i < bytes; i += kPart)
    std::memcpy(to + i, from + i, static_cast<size_t>(std::min(kPart, bytes - i)));
}

// The rows of the chunk that any rank of the node wants, neighbours together.
Status Outgoing::send_rows(RemoteNode& node, int64_t begin, int64_t end) {
  std::ranges::fill(node.is_wanted, uint8_t{0});
  for (const RankId rank : node.ranks)
    for (const ListEntry& entry : peers_[subscript(rank)].entries)
      node.is_wanted[entry.token - static_cast<size_t>(begin)] = 1;
  const auto wanted = [&](int64_t t) { return node.is_wanted[static_cast<size_t>(t - begin)]; };
  const ExchangeLayout& layout = exchange_.layout;
  for (int64_t t = begin; t < end; ++t) {
    if (!wanted(t)) continue;
    const int64_t first = t;
    while (t < end && wanted(t))
      ++t;
    const auto bytes = static_cast<size_t>((t - first) * layout.row_bytes());
    WD_TRY(exchange_.fabric.put(
        node.region.owner, layout.region_row(node.region, first),
        exchange_.fabric.arena().subspan(static_cast<size_t>(layout.row(first)), bytes)));
  }
  return {};
}

Status Outgoing::send_lists() {
  for (int32_t r = 0; r < exchange_.num_ranks(); ++r) {
    Peer& peer = peers_[static_cast<size_t>(r)];
    if (peer.entries.empty()) continue;
    const int64_t offset = exchange_.layout.list(exchange_.rank()) +
                           peer.sent * static_cast<int64_t>(sizeof(ListEntry));
    WD_TRY(exchange_.fabric.put(RankId{r}, offset, std::as_bytes(std::span(peer.entries))));
    peer.sent += std::ssize(peer.entries);
    peer.entries.clear();
  }
  return {};
}

Status Outgoing::send_words() {
  for (int32_t r = 0; r < exchange_.num_ranks(); ++r) {
    const Peer& peer = peers_[static_cast<size_t>(r)];
    WD_TRY(exchange_.fabric.signal(RankId{r}, kDispatchChannel,
                                   encode(id_, DispatchWord{peer.sent, peer.total})));
  }
  return {};
}

Status Outgoing::combine(MatrixView<const float> shared, MatrixView<float> x, TimePoint deadline) {
  WD_CHECK(x.rows == num_tokens_);
  const auto op = [&] { return fmt::format("combine of layer {}", index(id_.layer)); };
  const auto has_come = [&](RankId rank) -> Result<bool> {
    WD_ASSIGN_OR_RETURN(const std::optional<CombineWord> word,
                        parse_combine(exchange_.fabric.poll(rank, kCombineChannel), id_,
                                      exchange_.layout.entries_max()));
    if (word && word->count != peers_[subscript(rank)].total)
      return error(ErrorCode::kDataLoss, "returned {} rows, {} were sent", word->count,
                   peers_[subscript(rank)].total);
    return word.has_value();
  };
  WD_TRY(await_all(exchange_.fabric, op, deadline, has_come));
  const ExchangeShape& shape = exchange_.options.shape;
  add_results({.format = shape.formats.combine,
               .top_k = shape.top_k,
               .rows = result_pointers_,
               .weights = weights_},
              shared, x, exchange_.kernels, exchange_.pool);
  return {};
}

}  // namespace wideep::ep
