// The headers between client, gateway, picker and sidecar that only our own side may set. What a
// client sends under these names is removed at the edge: gateway and ext_proc alike.
#pragma once

#include <array>
#include <string_view>

namespace wideep::epp {

inline constexpr std::string_view kDestinationHeader = "x-gateway-destination-endpoint";
inline constexpr std::string_view kDroppedReasonHeader = "x-llm-d-request-dropped-reason";

// Of answers, where a gateway tells the way they took: "default/decode-0 10.0.0.7:8000", the
// endpoint that answered, and the one that computed the prompt, if it was another.
inline constexpr std::string_view kDecodeRouteHeader = "x-wideep-decode";
inline constexpr std::string_view kPrefillRouteHeader = "x-wideep-prefill";

inline constexpr std::array<std::string_view, 12> kInternalHeaders = {
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-data-parallel-rank",
    "x-kv-cache-source-host-port",
    kDestinationHeader,
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-scores",
    kDroppedReasonHeader,
    "x-went-into-resp-headers",
    "epp-profile",
};

}  // namespace wideep::epp
