// modules: fabric
// What ranks say when they meet, and the greeting of a connection, and the
// introduction to UCX.
#include "base/check.h"
#include "fabric/handover.h"
#include "fabric/membership.h"
#include "fabric/ucx_introduction.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideep::fabric;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto introduction = parse_introduction(text)) {
    WD_CHECK(index(introduction->rank) < introduction->num_ranks);
    WD_CHECK(parse_introduction(encode(*introduction)).has_value());
  }
  if (const auto membership = parse_membership(text, 2)) {
    WD_CHECK(membership->node_of.size() == 2);
    WD_CHECK(membership->addresses.size() == 2);
    WD_CHECK(parse_membership(encode(*membership), 2).has_value());
  }
  WD_CHECK(end_in(text).code != wideep::ErrorCode::kUnavailable);
  const Greeting own{kGreetingMagic, 1, 2, 0};
  if (const auto rank = parse_greeting(std::as_bytes(std::span(data, size)), own, 4))
    WD_CHECK(index(*rank) < 4);
  const std::array node = {wideep::RankId{1}, wideep::RankId{3}};
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto introduction = parse_ucx_introduction(bytes, node)) {
    WD_CHECK(introduction->windows.size() == 2);
    WD_CHECK(std::ranges::equal(encode(*introduction), bytes));
  }
  return 0;
}
