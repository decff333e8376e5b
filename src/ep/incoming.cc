#include "ep/incoming.h"

#include "base/check.h"

#include <algorithm>
#include <cstring>

namespace wideep::ep {
namespace {

int64_t batch_rows_max(const Exchange& exchange) {
  return std::min(exchange.options.batch_rows_max,
                  exchange.num_ranks() * exchange.layout.entries_max());
}

}  // namespace

Incoming::Incoming(Exchange exchange)
    : exchange_(exchange),
      sources_(static_cast<size_t>(exchange.num_ranks())),
      inbox_(exchange.placement.slots_per_rank_max(),
             exchange.num_ranks() * exchange.layout.entries_max(),
             batch_rows_max(exchange)),
      regions_(sources_.size()) {
  const auto rows_max = static_cast<size_t>(batch_rows_max(exchange));
  const ExchangeShape& shape = exchange.options.shape;
  batch_.reserve(rows_max);
  in_.reserve(rows_max);
  out_.reserve(rows_max);
  out_is_far_.reserve(rows_max);
  experts_.reserve(static_cast<size_t>(exchange.placement.slots_per_rank_max()));
  bool any_remote = false;
  for (int32_t r = 0; r < exchange.num_ranks(); ++r) {
    if (is_here(RankId{r})) continue;
    any_remote = true;
    regions_[static_cast<size_t>(r)] = exchange.layout.region_of(RankId{r}, exchange.rank());
  }
  if (any_remote)
    results_ = AlignedBuffer(rows_max * static_cast<size_t>(exchange.layout.result_bytes()));
  results_.prefault();
  if (shape.formats.input != shape.formats.dispatch) {
    const int64_t row_bytes = math::row_bytes(shape.formats.input, shape.hidden);
    inputs_ = AlignedBuffer(rows_max * static_cast<size_t>(row_bytes));
    inputs_.prefault();
    decoded_ = AlignedBuffer(static_cast<size_t>(
        exchange.pool.num_threads() * math::row_bytes(math::RowFormat::kF32, shape.hidden)));
    converted_.resize(sources_.size() * static_cast<size_t>(shape.tokens_max));
    to_convert_.reserve(std::min(rows_max, converted_.size()));
  }
}

bool Incoming::is_here(RankId source) const {
  return exchange_.fabric.shape().same_node(source, exchange_.rank());
}

void Incoming::open(const ExchangeId& id) {
  id_ = id;
  std::ranges::fill(sources_, Source{});
  num_complete_ = 0;
  inbox_.clear();
  batch_.clear();
}

Result<ExpertBatch> Incoming::next(int64_t at_least, TimePoint deadline) {
  for (;;) {
    WD_TRY(receive());
    const bool all_here = num_complete_ == exchange_.num_ranks();
    const std::span<const Inbox::Group> groups = inbox_.take(all_here ? 1 : at_least);
    if (!groups.empty()) return hand_out(groups);
    WD_TRY(answer());  // sources that want nothing from here
    if (all_here) return ExpertBatch{};
    WD_TRY(await_more(deadline));
  }
}

Result<bool> Incoming::receive() {
  bool any = false;
  for (int32_t r = 0; r < exchange_.num_ranks(); ++r) {
    if (sources_[static_cast<size_t>(r)].is_complete()) continue;
    const Result<bool> some = receive_from(RankId{r});
    if (!some) return blame(RankId{r}, some.error());
    any |= *some;
  }
  return any;
}

Result<bool> Incoming::receive_from(RankId rank) {
  Source& source = sources_[subscript(rank)];
  WD_ASSIGN_OR_RETURN(const std::optional<DispatchWord> word,
                      parse_dispatch(exchange_.fabric.poll(rank, kDispatchChannel), id_,
                                     exchange_.layout.entries_max()));
  if (!word) return false;
  if (source.total >= 0 && (word->total != source.total || word->count < source.arrived))
    return error(ErrorCode::kDataLoss, "went from {} of {} entries to {} of {}", source.arrived,
                 source.total, word->count, word->total);
  const bool is_new = source.total < 0 || word->count > source.arrived;
  source.total = word->total;
  WD_TRY(take_entries(rank, word->count));
  if (source.is_complete()) ++num_complete_;
  return is_new;
}

// Copies, checks, and queues the entries up to `end`.
Status Incoming::take_entries(RankId rank, int64_t end) {
  Source& source = sources_[subscript(rank)];
  const ExchangeShape& shape = exchange_.options.shape;
  const LayerPlacement& layer = exchange_.placement.layer(id_.layer);
  const EntryLimits limits{.tokens_max = shape.tokens_max,
                           .num_slots = std::ssize(layer.experts_of(exchange_.rank())),
                           .top_k = shape.top_k};
  const std::byte* list = exchange_.fabric.arena().data() + exchange_.layout.list(rank);
  for (; source.arrived < end; ++source.arrived) {
    ListEntry entry;
    std::memcpy(&entry, list + source.arrived * static_cast<int64_t>(sizeof entry), sizeof entry);
    WD_TRY(check(entry, limits));
    inbox_.add(SlotId{entry.slot},
               {.row = row(rank, entry.token), .source = rank, .token = entry.token, .k = entry.k});
  }
  return {};
}

const std::byte* Incoming::row(RankId source, int64_t token) const {
  const ExchangeLayout& layout = exchange_.layout;
  if (is_here(source)) return exchange_.fabric.mapped(source).data() + layout.row(token);
  const Region& region = regions_[subscript(source)];
  return exchange_.fabric.mapped(region.owner).data() + layout.region_row(region, token);
}

Status Incoming::await_more(TimePoint deadline) {
  std::optional<Error> failure;
  bool arrived = false;
  const auto ready = [&] {
    if (arrived || failure) return true;
    const Result<bool> some = receive();
    if (!some) failure = some.error();
    arrived = some && *some;
    return arrived || failure;
  };
  const auto what = [&] { return fmt::format("dispatch of layer {}", index(id_.layer)); };
  const auto missing = [&] {
    std::vector<RankId> ranks;
    for (size_t r = 0; r < sources_.size(); ++r)
      if (!sources_[r].is_complete()) ranks.push_back(RankId{static_cast<int32_t>(r)});
    return ranks;
  };
  WD_TRY(exchange_.fabric.wait({.ready = ready, .what = what, .missing = missing}, deadline));
  if (failure) return std::unexpected(*std::move(failure));
  return {};
}

ExpertBatch Incoming::hand_out(std::span<const Inbox::Group> groups) {
  batch_.clear();
  in_.clear();
  out_.clear();
  out_is_far_.clear();
  experts_.clear();
  const bool fits = exchange_.stays_in_cache(num_expected());
  const bool streams = !fits || exchange_.choice.streams();
  // Its own results this rank reads from its cache, unless they are known not to fit.
  const bool streams_own = !fits && exchange_.options.shared_cache_bytes > 0;
  for (const Inbox::Group& group : groups) {
    const size_t begin = batch_.size();
    for (const Arrival& arrival : group.arrivals) {
      in_.push_back(arrival.row);
      out_.push_back(output(arrival, batch_.size()));
      const bool is_own = arrival.source == exchange_.rank();
      out_is_far_.push_back(is_here(arrival.source) && (is_own ? streams_own : streams));
      batch_.push_back(arrival);
    }
    const size_t count = group.arrivals.size();
    experts_.push_back({.slot = group.slot,
                        .in = std::span(in_).subspan(begin, count),
                        .out = std::span(out_).subspan(begin, count),
                        .out_is_far = std::span(out_is_far_).subspan(begin, count)});
    exchange_.load.add_computed(id_.layer, group.slot, static_cast<int64_t>(count));
  }
  const RowFormats& formats = exchange_.options.shape.formats;
  if (formats.input != formats.dispatch) convert_inputs();
  return {experts_};
}

int64_t Incoming::num_expected() const {
  int64_t sum = 0;
  for (const Source& source : sources_)
    sum += std::max<int64_t>(source.total, 0);
  return sum;
}

// To the format that the experts multiply: each row once, however many experts of this rank want
// it, by all threads.
void Incoming::convert_inputs() {
  const ExchangeShape& shape = exchange_.options.shape;
  const int64_t row_bytes = math::row_bytes(shape.formats.input, shape.hidden);
  ++batch_number_;
  to_convert_.clear();
  for (size_t i = 0; i < batch_.size(); ++i) {
    const Arrival& arrival = batch_[i];
    Converted& converted =
        converted_[subscript(arrival.source) * static_cast<size_t>(shape.tokens_max) +
                   arrival.token];
    if (converted.batch != batch_number_) {
      converted = {.batch = batch_number_, .place = std::ssize(to_convert_)};
      to_convert_.push_back(arrival.row);
    }
    in_[i] = inputs_.data() + converted.place * row_bytes;
  }
  exchange_.pool.for_each(std::ssize(to_convert_), [&](int64_t i, int thread) {
    auto* decoded = reinterpret_cast<float*>(
        decoded_.data() + thread * math::row_bytes(math::RowFormat::kF32, shape.hidden));
    exchange_.kernels.decode_row(shape.formats.dispatch, to_convert_[static_cast<size_t>(i)],
                                 shape.hidden, decoded);
    exchange_.kernels.encode_row(shape.formats.input, decoded, shape.hidden,
                                 inputs_.data() + i * row_bytes);
  });
}

std::byte* Incoming::output(const Arrival& arrival, size_t place) {
  const ExchangeLayout& layout = exchange_.layout;
  if (is_here(arrival.source)) {
    return exchange_.fabric.mapped(arrival.source).data() + layout.result(arrival.token, arrival.k);
  }
  return results_.data() + static_cast<int64_t>(place) * layout.result_bytes();
}

Status Incoming::finish() {
  const ExchangeLayout& layout = exchange_.layout;
  for (size_t i = 0; i < batch_.size(); ++i) {
    const Arrival& arrival = batch_[i];
    ++sources_[subscript(arrival.source)].returned;
    if (is_here(arrival.source)) continue;
    WD_TRY(exchange_.fabric.put(arrival.source, layout.result(arrival.token, arrival.k),
                                {out_[i], static_cast<size_t>(layout.result_bytes())}));
  }
  batch_.clear();
  return answer();
}

Status Incoming::answer() {
  for (int32_t r = 0; r < exchange_.num_ranks(); ++r) {
    Source& source = sources_[static_cast<size_t>(r)];
    if (source.is_answered || source.returned != source.total) continue;
    source.is_answered = true;
    WD_TRY(exchange_.fabric.signal(RankId{r}, kCombineChannel,
                                   encode(id_, CombineWord{source.returned})));
  }
  return {};
}

}  // namespace wideep::ep
