// Profile handlers and the deciders of disaggregation.
#pragma once

#include "epp/plugin.h"
#include "epp/prefix_index.h"

#include <cstdint>
#include <memory>
#include <string>

namespace wideep::epp {

inline constexpr std::string_view kPrefillHeader = "x-prefiller-host-port";

// What happens when a prefill is wanted and no prefill endpoint is left.
enum class NoPrefillerPolicy : uint8_t { kDecodeOnly, kFail };

// single-profile-handler: the one profile.
class SingleProfileHandler final : public ProfileHandler {
 public:
  Result<Decision> decide(PickContext& context, std::span<const Profile> profiles) override;
};

// disagg-profile-handler, decode first: the decode profile chooses the destination; if the decider
// says so the prefill profile chooses where the prompt is computed, and x-prefiller-host-port tells
// the decode side.
class DisaggProfileHandler final : public ProfileHandler {
 public:
  struct Options {
    std::string decode_profile = "decode";
    std::string prefill_profile = "prefill";
    NoPrefillerPolicy no_prefiller = NoPrefillerPolicy::kDecodeOnly;
  };

  // `decider` may be null: never. Shared with the registry of plugins.
  DisaggProfileHandler(Options options, std::shared_ptr<PrefillDecider> decider)
      : options_(std::move(options)), decider_(std::move(decider)) {}

  Result<Decision> decide(PickContext& context, std::span<const Profile> profiles) override;

 private:
  Options options_;
  std::shared_ptr<PrefillDecider> decider_;
};

// always-disagg-pd-decider.
class AlwaysDisaggDecider final : public PrefillDecider {
 public:
  bool disaggregate(PickContext&, const Endpoint&) override { return true; }
};

// prefix-based-pd-decider: input >= promptTokens, input >= nonCachedTokens, and what the decode
// endpoint does not hold yet >= nonCachedTokens; nonCachedTokens 0 is never.
class PrefixBasedDecider final : public PrefillDecider {
 public:
  PrefixBasedDecider(std::shared_ptr<PrefixIndex> index,
                     int64_t non_cached_tokens,
                     int64_t prompt_tokens)
      : index_(std::move(index)),
        non_cached_tokens_(non_cached_tokens),
        prompt_tokens_(prompt_tokens) {}

  bool disaggregate(PickContext& context, const Endpoint& decode) override;

 private:
  std::shared_ptr<PrefixIndex> index_;
  int64_t non_cached_tokens_;
  int64_t prompt_tokens_;
};

}  // namespace wideep::epp
