// The seams of the picker: filter -> score -> pick, run by a profile handler. One class per plugin,
// named as users of llm-d's EndpointPickerConfig know them.
//
// Thread: every method may be called by many requests at once; plugins with state guard it
// themselves.
#pragma once

#include "base/result.h"
#include "base/rounding.h"
#include "epp/endpoint.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::epp {

class PrefixIndex;

// A prompt that came as text is counted in pseudo-tokens of so many bytes, the last one filled up.
inline constexpr int64_t kBytesPerToken = 4;

constexpr int64_t tokens_of_bytes(int64_t bytes) {
  return divide_up(bytes, kBytesPerToken);
}

// The part of a request that decides where it goes.
struct PickRequest {
  std::string model;
  std::string cache_salt;
  std::string prompt;            // text of prompt or messages; empty when token ids came
  std::vector<uint32_t> tokens;  // token ids of the prompt, if the body had them
  std::function<const std::string*(std::string_view name)>
      header;           // lower-case name; nullptr: not there
  uint64_t random = 0;  // drawn once per request: ties and random pickers are functions of it

  const std::string* header_value(std::string_view name) const {
    return header ? header(name) : nullptr;
  }

  int64_t input_tokens() const;  // given, or estimated
};

// What the plugins of one request tell each other.
struct PickContext {
  const PickRequest& request;
  std::shared_ptr<const Snapshot> snapshot;  // keeps the candidates alive

  // Prefix blocks of the request, and how many each endpoint (by id) is believed to hold.
  struct PrefixMatch {
    int64_t block_tokens = 0;
    std::vector<uint64_t> hashes;
    std::vector<int32_t> matched_blocks;  // by endpoint id; those beyond its end match nothing

    int64_t blocks_of(int32_t endpoint) const {
      const auto i = static_cast<size_t>(endpoint);
      return i < matched_blocks.size() ? matched_blocks[i] : 0;
    }
  };

  std::map<const PrefixIndex*, PrefixMatch> prefix;
};

using Candidates = std::vector<const Endpoint*>;

class Filter {
 public:
  virtual ~Filter() = default;
  // Keeps some of the candidates, in order.
  virtual Candidates filter(PickContext& context, Candidates candidates) = 0;
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  // One score per candidate, nominally in [0, 1] (clamped by the profile).
  virtual std::vector<double> score(PickContext& context,
                                    std::span<const Endpoint* const> candidates) = 0;
};

struct ScoredEndpoint {
  const Endpoint* endpoint = nullptr;
  double score = 0;
};

class Picker {
 public:
  virtual ~Picker() = default;
  // One or more of the candidates, best first: the first is the destination, the rest its
  // fallbacks.
  virtual std::vector<ScoredEndpoint> pick(PickContext& context,
                                           std::vector<ScoredEndpoint> candidates) = 0;
};

// Something that wants to know where a request went (prefix index, session tables).
class PreRequest {
 public:
  virtual ~PreRequest() = default;
  virtual void on_routed(PickContext& context,
                         const Endpoint& endpoint,
                         std::string_view profile) = 0;
};

// Whether a request is worth a prefill elsewhere, given the decode endpoint.
class PrefillDecider {
 public:
  virtual ~PrefillDecider() = default;
  virtual bool disaggregate(PickContext& context, const Endpoint& decode) = 0;
};

struct Profile {
  std::string name;
  std::vector<std::shared_ptr<Filter>> filters;
  std::vector<std::pair<std::shared_ptr<Scorer>, double>> scorers;  // with weights
  std::shared_ptr<Picker> picker;
};

// filter -> score -> pick. Empty when no candidate passes the filters.
std::vector<ScoredEndpoint> run_profile(const Profile& profile, PickContext& context);

// Where a request goes.
struct Decision {
  std::vector<ScoredEndpoint> destinations;    // destination and fallbacks, in order; never empty
  const Endpoint* prefill = nullptr;           // set when prefill runs elsewhere
  std::map<std::string, std::string> headers;  // to be set on the request
  std::shared_ptr<const Snapshot> snapshot;    // keeps the endpoints alive
};

class ProfileHandler {
 public:
  virtual ~ProfileHandler() = default;
  // Runs profiles as it sees fit. kUnavailable: no endpoint is left; the message says at which
  // profile.
  virtual Result<Decision> decide(PickContext& context, std::span<const Profile> profiles) = 0;
};

}  // namespace wideep::epp
