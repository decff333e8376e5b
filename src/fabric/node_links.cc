#include "fabric/node_links.h"

#include "fabric/arena.h"
#include "fabric/handover.h"
#include "fabric/reception.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>

namespace wideep::fabric {
namespace {

constexpr std::chrono::seconds kIntroductionTimeout{5};

WaitLimit limit_of(const LinkOptions& options) {
  return {real_clock().now() + options.timeout, options.interrupt};
}

Status introduce(Stream& stream, const UcxIntroduction& introduction, TimePoint deadline) {
  const std::vector<std::byte> bytes = encode(introduction);
  const auto length = static_cast<uint32_t>(bytes.size());
  WD_TRY(write_all(stream, std::as_bytes(std::span(&length, 1)), deadline));
  return write_all(stream, bytes, deadline);
}

Result<UcxIntroduction> receive_introduction(Stream& stream,
                                             std::span<const RankId> node,
                                             const WaitLimit& limit) {
  uint32_t length = 0;
  WD_TRY(read_all(stream, std::as_writable_bytes(std::span(&length, 1)), limit));
  if (length > kUcxIntroductionBytesMax)
    return invalid_argument("ucx introduction of {} bytes, at most {}", length,
                            kUcxIntroductionBytesMax);
  std::vector<std::byte> bytes(length);
  WD_TRY(read_all(stream, bytes, limit));
  return parse_ucx_introduction(bytes, node);
}

Result<std::string> hear_greeting(Stream& stream, TimePoint deadline) {
  std::string greeting(sizeof(Greeting), '\0');
  WD_TRY(read_all(stream, std::as_writable_bytes(std::span(greeting)), deadline));
  return greeting;
}

// Who has called, if it is one of those that should.
Result<SourceLink> admit(Guest guest,
                         const Greeting& own,
                         const Shape& shape,
                         const LinkOptions& options,
                         std::vector<RankId>& expected) {
  WD_ASSIGN_OR_RETURN(const RankId source, parse_greeting(std::as_bytes(std::span(guest.words)),
                                                          own, shape.num_ranks()));
  if (std::erase(expected, source) != 1) return invalid_argument("not a rank that should call");
  if (options.ucx != nullptr)
    WD_TRY(introduce(*guest.stream, options.ucx->introduction(),
                     real_clock().now() + kIntroductionTimeout));
  return SourceLink{source, std::move(guest.stream)};
}

Status accept_sources(int listener,
                      const Shape& shape,
                      const Greeting& own,
                      const LinkOptions& options,
                      std::vector<SourceLink>& incoming) {
  const RankId rank{static_cast<int32_t>(own.rank)};
  const WaitLimit limit = limit_of(options);
  std::vector<RankId> expected;
  for (int32_t r = 0; r < shape.num_ranks(); ++r)
    if (!shape.same_node(rank, RankId{r}) && shape.door(RankId{r}, rank) == rank)
      expected.push_back(RankId{r});
  WD_ASSIGN_OR_RETURN(
      const std::unique_ptr<Reception> reception,
      Reception::open(
          {.listener = listener, .name = "links", .key = options.key, .tcp = options.tcp},
          &hear_greeting));
  while (!expected.empty()) {
    std::array<pollfd, 2> polled = reception->polled();
    if (!limit.await(polled)) {
      std::string missing;
      for (const RankId r : expected)
        missing += fmt::format(" {}", index(r));
      return error(ErrorCode::kTimeout, "links: ranks{} of other nodes did not call", missing);
    }
    WD_ASSIGN_OR_RETURN(std::vector<Guest> guests, reception->take());
    for (Guest& guest : guests) {
      Result<SourceLink> link = admit(std::move(guest), own, shape, options, expected);
      if (link) {
        incoming.push_back(*std::move(link));
      } else {
        reception->refuse(link.error());
      }
    }
  }
  return {};
}

Status connect_nodes(const Shape& shape,
                     const Greeting& own,
                     const LinkOptions& options,
                     std::vector<NodeLink>& outgoing) {
  const RankId rank{static_cast<int32_t>(own.rank)};
  const WaitLimit limit = limit_of(options);
  for (const std::vector<RankId>& ranks : shape.ranks_by_node()) {
    if (shape.same_node(ranks.front(), rank)) continue;
    const RankId door = shape.door(rank, ranks.front());
    Result<UniqueFd> socket = connect_to(options.addresses[subscript(door)], limit);
    if (!socket) return with_context(socket.error(), fmt::format("links: rank {}", index(door)));
    WD_TRY(prepare_socket(socket->get(), options.tcp));
    NodeLink link{.door = door, .ranks = ranks, .stream = nullptr, .direct = nullptr};
    WD_ASSIGN_OR_RETURN(link.stream,
                        open_stream(*std::move(socket), TlsRole::kClient, options.key, limit));
    WD_TRY(write_all(*link.stream, std::as_bytes(std::span(&own, 1)), limit));
    if (options.ucx != nullptr) {
      WD_ASSIGN_OR_RETURN(const UcxIntroduction introduction,
                          receive_introduction(*link.stream, ranks, limit));
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
