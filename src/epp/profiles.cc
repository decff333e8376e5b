#include "epp/profiles.h"

#include <algorithm>

namespace wideep::epp {
namespace {

const Profile* find_profile(std::span<const Profile> profiles, std::string_view name) {
  const auto it = std::ranges::find(profiles, name, &Profile::name);
  return it == profiles.end() ? nullptr : &*it;
}

std::unexpected<Error> nothing_left(std::string_view profile) {
  return error(ErrorCode::kUnavailable, "no endpoint passes the filters of profile '{}'", profile);
}

}  // namespace

int64_t PickRequest::input_tokens() const {
  if (!tokens.empty()) return static_cast<int64_t>(tokens.size());
  return tokens_of_bytes(static_cast<int64_t>(prompt.size()));
}

std::vector<ScoredEndpoint> run_profile(const Profile& profile, PickContext& context) {
  Candidates candidates;
  candidates.reserve(context.snapshot->endpoints.size());
  for (const Endpoint& endpoint : context.snapshot->endpoints)
    candidates.push_back(&endpoint);
  for (const auto& filter : profile.filters)
    candidates = filter->filter(context, std::move(candidates));
  if (candidates.empty()) return {};

  std::vector<ScoredEndpoint> scored;
  scored.reserve(candidates.size());
  for (const Endpoint* endpoint : candidates)
    scored.push_back({endpoint, 0});
  for (const auto& [scorer, weight] : profile.scorers) {
    const std::vector<double> scores = scorer->score(context, candidates);
    for (size_t i = 0; i < scored.size(); ++i)
      scored[i].score += weight * std::clamp(scores[i], 0.0, 1.0);
  }
  return profile.picker->pick(context, std::move(scored));
}

Result<Decision> SingleProfileHandler::decide(PickContext& context,
                                              std::span<const Profile> profiles) {
  Decision decision{.snapshot = context.snapshot};
  decision.destinations = run_profile(profiles.front(), context);
  if (decision.destinations.empty()) return nothing_left(profiles.front().name);
  return decision;
}

Result<Decision> DisaggProfileHandler::decide(PickContext& context,
                                              std::span<const Profile> profiles) {
  Decision decision{.snapshot = context.snapshot};
  decision.destinations = run_profile(*find_profile(profiles, options_.decode_profile), context);
  if (decision.destinations.empty()) return nothing_left(options_.decode_profile);
  const Endpoint& decode = *decision.destinations.front().endpoint;
  if (decider_ == nullptr || !decider_->disaggregate(context, decode)) return decision;

  const auto prefill = run_profile(*find_profile(profiles, options_.prefill_profile), context);
  if (prefill.empty()) {
    if (options_.no_prefiller == NoPrefillerPolicy::kFail)
      return nothing_left(options_.prefill_profile);
    return decision;
  }
  decision.prefill = prefill.front().endpoint;
  std::string hosts;
  for (const ScoredEndpoint& choice : prefill)
    hosts += (hosts.empty() ? "" : ",") + choice.endpoint->host_port;
  decision.headers[std::string(kPrefillHeader)] = hosts;
  return decision;
}

bool PrefixBasedDecider::disaggregate(PickContext& context, const Endpoint& decode) {
  const int64_t input = context.request.input_tokens();
  if (non_cached_tokens_ == 0 || input < prompt_tokens_ || input < non_cached_tokens_) return false;
  const PickContext::PrefixMatch& match = index_->match(context);
  const int64_t cached = match.blocks_of(decode.id) * match.block_tokens;
  return input - cached >= non_cached_tokens_;
}

}  // namespace wideep::epp
