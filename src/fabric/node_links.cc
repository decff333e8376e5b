#include "fabric/node_links.h"

#include "base/log.h"
#include "fabric/arena.h"
#include "fabric/handover.h"

#include <algorithm>
#include <array>
#include <thread>

namespace wideep::fabric {
namespace {

constexpr int kStrangersMax = 64;
constexpr std::chrono::seconds kGreetingTimeout{5};  // a stranger does not hold up the others

Status introduce(Stream& stream, const UcxIntroduction& introduction, TimePoint deadline) {
  const std::vector<std::byte> bytes = encode(introduction);
  const auto length = static_cast<uint32_t>(bytes.size());
  WD_TRY(write_all(stream, std::as_bytes(std::span(&length, 1)), deadline));
  return write_all(stream, bytes, deadline);
}

Result<UcxIntroduction> receive_introduction(Stream& stream,
                                             std::span<const RankId> node,
                                             TimePoint deadline) {
  uint32_t length = 0;
  WD_TRY(read_all(stream, std::as_writable_bytes(std::span(&length, 1)), deadline));
  if (length > kUcxIntroductionBytesMax)
    return invalid_argument("ucx introduction of {} bytes, at most {}", length,
                            kUcxIntroductionBytesMax);
  std::vector<std::byte> bytes(length);
  WD_TRY(read_all(stream, bytes, deadline));
  return parse_ucx_introduction(bytes, node);
}

Result<SourceLink> greet_caller(UniqueFd socket,
                                const Greeting& own,
                                const Shape& shape,
                                const LinkOptions& options) {
  const TimePoint deadline = real_clock().now() + kGreetingTimeout;
  WD_ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream,
                      open_stream(std::move(socket), TlsRole::kServer, options.key, deadline));
  std::array<std::byte, sizeof(Greeting)> bytes;
  WD_TRY(read_all(*stream, bytes, deadline));
  WD_ASSIGN_OR_RETURN(const RankId source, parse_greeting(bytes, own, shape.num_ranks()));
  if (options.ucx != nullptr) WD_TRY(introduce(*stream, options.ucx->introduction(), deadline));
  return SourceLink{source, std::move(stream)};
}

Status accept_sources(int listener,
                      const Shape& shape,
                      const Greeting& own,
                      const LinkOptions& options,
                      std::vector<SourceLink>& incoming) {
  const RankId rank{static_cast<int32_t>(own.rank)};
  const TimePoint deadline = real_clock().now() + options.timeout;
  std::vector<RankId> expected;
  for (int32_t r = 0; r < shape.num_ranks(); ++r)
    if (!shape.same_node(rank, RankId{r}) && shape.door(RankId{r}, rank) == rank)
      expected.push_back(RankId{r});
  for (int strangers = 0; !expected.empty();) {
    Result<UniqueFd> socket = accept_call(listener, deadline);
    if (!socket)
      return error(socket.error().code, "links: {} ranks of other nodes, rank {} among them: {}",
                   expected.size(), index(expected.front()), socket.error().message);
    WD_TRY(prepare_socket(socket->get(), options.tcp));
    Result<SourceLink> link = greet_caller(*std::move(socket), own, shape, options);
    if (link && std::erase(expected, link->source) == 1) {
      incoming.push_back(*std::move(link));
      continue;
    }
    log_warning("links: refused a caller: {}",
                link ? std::string("not a rank that should call") : link.error().message);
    if (++strangers > kStrangersMax)
      return error(ErrorCode::kExhausted, "links: more than {} strangers called", kStrangersMax);
  }
  return {};
}

Status connect_nodes(const Shape& shape,
                     const Greeting& own,
                     const LinkOptions& options,
                     std::vector<NodeLink>& outgoing) {
  const RankId rank{static_cast<int32_t>(own.rank)};
  const TimePoint deadline = real_clock().now() + options.timeout;
  for (const std::vector<RankId>& ranks : shape.ranks_by_node()) {
    if (shape.same_node(ranks.front(), rank)) continue;
    const RankId door = shape.door(rank, ranks.front());
    Result<UniqueFd> socket =
        connect_to(options.addresses[static_cast<size_t>(index(door))], deadline);
    if (!socket) return with_context(socket.error(), fmt::format("links: rank {}", index(door)));
    WD_TRY(prepare_socket(socket->get(), options.tcp));
    NodeLink link{.door = door, .ranks = ranks, .stream = nullptr, .direct = nullptr};
    WD_ASSIGN_OR_RETURN(link.stream,
                        open_stream(*std::move(socket), TlsRole::kClient, options.key, deadline));
    WD_TRY(write_all(*link.stream, std::as_bytes(std::span(&own, 1)), deadline));
    if (options.ucx != nullptr) {
      WD_ASSIGN_OR_RETURN(const UcxIntroduction introduction,
                          receive_introduction(*link.stream, ranks, deadline));
      WD_ASSIGN_OR_RETURN(link.direct, options.ucx->connect(introduction));
    }
    outgoing.push_back(std::move(link));
  }
  return {};
}

}  // namespace

Result<NodeLinks> link_nodes(const Shape& shape,
                             RankId rank,
                             int listener,
                             const LinkOptions& options) {
  if (std::ssize(options.addresses) != shape.num_ranks())
    return invalid_argument("links: {} addresses for {} ranks", options.addresses.size(),
                            shape.num_ranks());
  const Greeting greeting{kGreetingMagic, options.token, hash(shape), index(rank)};
  NodeLinks links;
  // At the same time: with a key both ends must be at it, and everybody is both.
  Status connected;
  std::thread connecting(
      [&] { connected = connect_nodes(shape, greeting, options, links.outgoing); });
  const Status accepted = accept_sources(listener, shape, greeting, options, links.incoming);
  connecting.join();
  WD_TRY(connected);
  WD_TRY(accepted);
  return links;
}

}  // namespace wideep::fabric
