// Internal to api: the parts of requests that several of them share.
#pragma once

#include "api/field_reader.h"
#include "api/requests.h"

namespace wideep::api {

void read_generation_fields(FieldReader& reader,
                            const RequestLimits& limits,
                            GenerationFields& fields);
void read_chat_fields(FieldReader& reader, const RequestLimits& limits, ChatFields& fields);

}  // namespace wideep::api
