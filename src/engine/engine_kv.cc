// The engine's part in KV transfer: leases for what others will pull, pulls for what others have.
#include "base/check.h"
#include "base/log.h"
#include "engine/engine_impl.h"

#include <utility>

namespace wideep::engine {

std::string EngineImpl::kv_identity() const {
  return kv::identity_text(model_.fingerprint(), model_.numeric().describe(),
                           cache_.pool().layout());
}

// A ticket of another request must not pass: its tokens, salt and numbers are in the hash.
Status EngineImpl::check_ticket(Sequence& sequence) const {
  const Request& request = sequence.request();
  if (request.keep_kv && !options_.produces_kv)
    return invalid_argument("this rank keeps no KV for others");
  if (!request.ticket) return {};
  if (kv_source_ == nullptr) return invalid_argument("this rank pulls no KV");
  const api::KvTicket& ticket = request.ticket->ticket;
  const bool is_of_this_prompt = ticket.num_tokens == sequence.num_prompt() &&
                                 ticket.prompt_hash == sequence.prompt_hash(options_.block_size);
  const bool holds_it =
      static_cast<int64_t>(ticket.blocks.size()) == cache_.blocks_for(sequence.num_prompt());
  if (is_of_this_prompt && holds_it) return {};
  if (!options_.recompute_failed_pulls)
    return invalid_argument(
        "the KV ticket of request '{}' is not for this prompt: {} tokens there, {} here",
        ticket.request_id, ticket.num_tokens, sequence.num_prompt());
  log_warning("KV: the ticket of request '{}' is not for this prompt, which is computed here",
              ticket.request_id);
  sequence.can_pull = false;
  return {};
}

void EngineImpl::begin_pulls(const StepPlan& plan) {
  for (const PlannedPull& pull : plan.pulls) {
    const kv::TicketPtr& ticket = pull.sequence->request().ticket;
    if (pull.num_blocks == 0) {
      kv_source_->let_go(ticket);
      continue;
    }
    const auto first = pull.sequence->blocks.begin() + pull.first_block;
    kv_source_->pull({.sequence = pull.sequence->id(),
                      .ticket = ticket,
                      .first_block = static_cast<uint32_t>(pull.first_block),
                      .targets = {first, first + pull.num_blocks}});
  }
}

void EngineImpl::end_pull(const kv::PullOutcome& outcome) {
  Sequence* sequence = scheduler_.pull_ended(outcome.sequence, outcome.num_blocks);
  if (sequence == nullptr || outcome.status) return;
  if (options_.recompute_failed_pulls) return;  // it runs from what came
  Generation& generation = *generations_.at(outcome.sequence);
  generation.fail(
      {ErrorCode::kUnavailable, "The KV of the prompt could not be fetched; try again."},
      /*retryable=*/true);
  close(generation);
}

void EngineImpl::end_lease(kv::LeaseId lease) {
  const auto found = leased_.find(lease);
  WD_CHECK(found != leased_.end());
  cache_.give_back(found->second);
  leased_.erase(found);
  scheduler_.unblock();
}

// After the step, whether or not it went through: the requests have ended, and nothing writes into
// their blocks any more.
void EngineImpl::grant_leases() {
  for (Generation* generation : std::exchange(leasing_, {})) {
    generation->report_last(grant_lease(generation->sequence()));
    close(*generation);
  }
}

std::shared_ptr<const api::KvTicket> EngineImpl::grant_lease(Sequence& sequence) {
  std::vector<BlockId> blocks = scheduler_.keep_prompt_blocks(sequence);
  auto ticket = std::make_shared<api::KvTicket>();
  ticket->request_id = sequence.request().id;
  ticket->prompt_hash = sequence.prompt_hash(options_.block_size);
  ticket->num_tokens = sequence.num_prompt();
  for (const BlockId block : blocks)
    ticket->blocks.push_back({block, static_cast<uint32_t>(cache_.pool().generation(block))});
  const Result<kv::LeaseId> lease = leases_.grant({.prompt_hash = ticket->prompt_hash,
                                                   .num_tokens = ticket->num_tokens,
                                                   .blocks = ticket->blocks});
  if (!lease) {
    log_warning("KV: request '{}' keeps nothing: {}", ticket->request_id, lease.error().message);
    cache_.give_back(blocks);
    return nullptr;
  }
  leased_.emplace(*lease, std::move(blocks));
  ticket->lease_id = index(*lease);
  return ticket;
}

// A request ends before its ticket was used: both sides can let go at once.
void EngineImpl::drop_pull(Sequence& sequence) {
  if (!sequence.can_pull || kv_source_ == nullptr) return;
  if (sequence.state == SequenceState::kPulling)
    kv_source_->cancel(sequence.id());
  else
    kv_source_->let_go(sequence.request().ticket);
}

}  // namespace wideep::engine
