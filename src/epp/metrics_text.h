// The five series a picker needs, out of an engine's /metrics text.
#pragma once

#include "epp/endpoint.h"

#include <string_view>

namespace wideep::epp {

// `engine` is the value of label llm-d.ai/engine-type: "vllm" (also wideep and unknown ones),
// "sglang", "trtllm-serve". Several series of one name are added up (load) or averaged (cache use).
// `updated` stays as it is. False if none of the load series is there: then the text is not what it
// should be.
bool parse_metrics_text(std::string_view text, std::string_view engine, EndpointMetrics* metrics);

inline constexpr std::string_view kEngineLabel = "llm-d.ai/engine-type";

}  // namespace wideep::epp
