// What a picker reads of an OpenAI request: the JSON is parsed once, here.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "epp/plugin.h"

#include <string_view>

namespace wideep::epp {

struct RequestBody {
  Json json;
  PickRequest pick;  // model, salt, prompt or tokens; header and random are the caller's
  bool stream = false;
};

// Bodies of /v1/completions (`prompt`: text, list of texts, token ids, lists of them),
// /v1/chat/completions and /v1/messages (`messages`: role and content of each, parts of type text).
// A body without model has "": a server of one model does not need it. kInvalidArgument: no JSON
// object.
Result<RequestBody> parse_request_body(std::string_view body);

}  // namespace wideep::epp
