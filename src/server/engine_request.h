// From the fields of a request to what the engine runs: defaults filled in, lengths checked.
#pragma once

#include "api/requests.h"
#include "engine/request.h"
#include "model/config.h"

#include <cstdint>

namespace wideep::server {

enum class Endpoint { kChat, kCompletion };

// Adds what the client left open and checks it against the context. Choice i of n uses seed + i; a
// seed that is missing has been drawn by then. `request.prompt_tokens` is set by the caller.
struct RequestContext {
  Endpoint endpoint = Endpoint::kChat;
  const model::GenerationConfig& defaults;
  int64_t max_model_len = 0;
};

api::ApiResult<engine::Request> make_engine_request(const api::GenerationFields& fields,
                                                    int64_t num_prompt_tokens,
                                                    const RequestContext& context);

// The seed of a request that names none.
int64_t draw_seed();
// seed + choice, without overflow.
int64_t seed_of_choice(int64_t seed, int64_t choice);

}  // namespace wideep::server
