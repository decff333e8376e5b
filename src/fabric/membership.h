// What the ranks of an epoch tell each other when they meet: who is who, where, and under which
// rules. JSON with a length in front; both directions are checked before they are believed.
#pragma once

#include "base/ids.h"
#include "base/result.h"
#include "net/address.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::fabric {

inline constexpr int64_t kProtocol = 2;
inline constexpr int64_t kMeetingBytesMax = 1 << 20;  // of one message

// From a rank to the leader.
struct Introduction {
  RankId rank{};
  int32_t num_ranks = 0;  // that it expects
  std::string host;       // its host's identity: equal means shared memory is expected to work
  net::Address address;   // where ranks of other nodes reach it
  std::string rules;      // everything that must agree, readable; see JoinOptions
};

// From the leader to all.
struct Membership {
  uint64_t epoch = 0;
  uint64_t token = 0;  // known to the members only
  std::vector<NodeId> node_of;
  std::vector<net::Address> addresses;
};

std::string encode(const Introduction& introduction);
std::string encode(const Membership& membership);
// For a caller whom the leader does not let in: kInvalidArgument for good, else for now.
std::string encode_refusal(const Error& reason);
// The meeting is over for all, or the rank that says so leaves it.
std::string encode_end(std::string_view reason);

Result<Introduction> parse_introduction(std::string_view text);
// A refusal becomes its error, an end kPeerLost.
Result<Membership> parse_membership(std::string_view text, int32_t num_ranks);
// What a message says that should be an end.
Error end_in(std::string_view text);

// Numbers the hosts in order of their lowest rank.
std::vector<NodeId> number_nodes(const std::vector<std::string>& host_of);

}  // namespace wideep::fabric
