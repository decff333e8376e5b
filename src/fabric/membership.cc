#include "fabric/membership.h"

#include "base/json.h"
#include "fabric/fabric.h"

#include <algorithm>
#include <charconv>

namespace wideep::fabric {
namespace {

constexpr JsonLimits kLimits{.depth_max = 4, .values_max = 8 * kRanksMax};
constexpr size_t kTextMax = 4096;

Result<std::string> text_in(const Json& object, std::string_view key) {
  const Json* member = object.find(key);
  const std::string* text = member == nullptr ? nullptr : member->as_string();
  if (text == nullptr || text->size() > kTextMax)
    return invalid_argument("meeting: '{}' must be a string of at most {} bytes", key, kTextMax);
  return *text;
}

Result<int64_t> number_in(const Json& object, std::string_view key, int64_t lowest, int64_t most) {
  const Json* member = object.find(key);
  const std::optional<int64_t> value = member == nullptr ? std::nullopt : member->as_int();
  if (!value || *value < lowest || *value > most)
    return invalid_argument("meeting: '{}' must be an integer in [{}, {}]", key, lowest, most);
  return *value;
}

Result<uint64_t> hex_in(const Json& object, std::string_view key) {
  WD_ASSIGN_OR_RETURN(const std::string text, text_in(object, key));
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [last, failure] = std::from_chars(text.data(), end, value, 16);
  if (failure != std::errc{} || last != end)
    return invalid_argument("meeting: '{}' must be a hexadecimal number", key);
  return value;
}

Result<const Json::Array*> array_in(const Json& object, std::string_view key, int32_t length) {
  const Json* member = object.find(key);
  const Json::Array* array = member == nullptr ? nullptr : member->as_array();
  if (array == nullptr || std::ssize(*array) != length)
    return invalid_argument("meeting: '{}' must be an array of {}", key, length);
  return array;
}

std::string reason_in(const Json& value) {
  return value.as_string() == nullptr ? "" : value.as_string()->substr(0, kTextMax);
}

Result<Json> parse_message(std::string_view text) {
  WD_ASSIGN_OR_RETURN(Json message, parse_json(text, kLimits));
  if (!message.is_object()) return invalid_argument("meeting: no object");
  if (const Json* refusal = message.find("refused"))
    return invalid_argument("refused by the leader: {}", reason_in(*refusal));
  if (const Json* end = message.find("ended"))
    return error(ErrorCode::kPeerLost, "{}", reason_in(*end));
  WD_ASSIGN_OR_RETURN(const int64_t protocol, number_in(message, "protocol", 1, INT64_MAX));
  if (protocol != kProtocol)
    return invalid_argument("meeting: protocol {}, this rank speaks {}", protocol, kProtocol);
  return message;
}

}  // namespace

std::string encode(const Introduction& introduction) {
  return Json(Json::Object{{"protocol", kProtocol},
                           {"rank", index(introduction.rank)},
                           {"num_ranks", introduction.num_ranks},
                           {"host", introduction.host},
                           {"address", introduction.address.to_string()},
                           {"rules", introduction.rules}})
      .dump();
}

std::string encode(const Membership& membership) {
  Json nodes{Json::Array{}};
  for (const NodeId node : membership.node_of)
    nodes.append(index(node));
  Json addresses{Json::Array{}};
  for (const net::Address& address : membership.addresses)
    addresses.append(address.to_string());
  return Json(Json::Object{{"protocol", kProtocol},
                           {"epoch", fmt::format("{:x}", membership.epoch)},
                           {"token", fmt::format("{:x}", membership.token)},
                           {"nodes", std::move(nodes)},
                           {"addresses", std::move(addresses)}})
      .dump();
}

std::string encode_refusal(const Error& reason) {
  if (reason.code != ErrorCode::kInvalidArgument) return encode_end(reason.message);
  return Json(Json::Object{{"refused", reason.message}}).dump();
}

std::string encode_end(std::string_view reason) {
  return Json(Json::Object{{"ended", std::string(reason)}}).dump();
}

Error end_in(std::string_view text) {
  const Result<Json> message = parse_message(text);
  if (!message) return message.error();
  return {ErrorCode::kInvalidArgument, "meeting: a message that was not expected"};
}

Result<Introduction> parse_introduction(std::string_view text) {
  WD_ASSIGN_OR_RETURN(const Json message, parse_message(text));
  Introduction introduction;
  WD_ASSIGN_OR_RETURN(const int64_t num_ranks, number_in(message, "num_ranks", 1, kRanksMax));
  WD_ASSIGN_OR_RETURN(const int64_t rank, number_in(message, "rank", 0, num_ranks - 1));
  introduction.rank = RankId{static_cast<int32_t>(rank)};
  introduction.num_ranks = static_cast<int32_t>(num_ranks);
  WD_ASSIGN_OR_RETURN(introduction.host, text_in(message, "host"));
  WD_ASSIGN_OR_RETURN(introduction.rules, text_in(message, "rules"));
  WD_ASSIGN_OR_RETURN(const std::string address, text_in(message, "address"));
  WD_ASSIGN_OR_RETURN(introduction.address, net::parse_address(address));
  return introduction;
}

Result<Membership> parse_membership(std::string_view text, int32_t num_ranks) {
  WD_ASSIGN_OR_RETURN(const Json message, parse_message(text));
  Membership membership;
  WD_ASSIGN_OR_RETURN(membership.epoch, hex_in(message, "epoch"));
  WD_ASSIGN_OR_RETURN(membership.token, hex_in(message, "token"));
  if (membership.epoch == 0) return invalid_argument("meeting: epoch 0 is never used");
  WD_ASSIGN_OR_RETURN(const Json::Array* nodes, array_in(message, "nodes", num_ranks));
  for (const Json& node : *nodes) {
    const std::optional<int64_t> number = node.as_int();
    if (!number || *number < 0 || *number >= num_ranks)
      return invalid_argument("meeting: a node must be a number in [0, {})", num_ranks);
    membership.node_of.push_back(NodeId{static_cast<int32_t>(*number)});
  }
  WD_ASSIGN_OR_RETURN(const Json::Array* addresses, array_in(message, "addresses", num_ranks));
  for (const Json& address : *addresses) {
    if (address.as_string() == nullptr || address.as_string()->size() > kTextMax)
      return invalid_argument("meeting: an address must be a string");
    WD_ASSIGN_OR_RETURN(net::Address parsed, net::parse_address(*address.as_string()));
    membership.addresses.push_back(std::move(parsed));
  }
  return membership;
}

std::vector<NodeId> number_nodes(const std::vector<std::string>& host_of) {
  std::vector<std::string> known;
  std::vector<NodeId> nodes;
  for (const std::string& host : host_of) {
    const auto found = std::ranges::find(known, host);
    nodes.push_back(NodeId{static_cast<int32_t>(found - known.begin())});
    if (found == known.end()) known.push_back(host);
  }
  return nodes;
}

}  // namespace wideep::fabric
