// What must be equal on the two sides of a hand-over of KV, readable, so that a refusal names both.
// Never the version of the build.
#pragma once

#include "base/hash.h"
#include "base/result.h"
#include "kv/layout.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace wideep::kv {

inline constexpr uint16_t kProtocol = 1;     // of the wire, see wire.h
inline constexpr uint16_t kProtocolMin = 1;  // the oldest one that is still spoken

// "model 3f…; precision=mixed …; mla: 61 layers x 1152 bytes, 64 tokens a block"
std::string identity_text(std::string_view model_fingerprint,
                          std::string_view numeric_config,
                          const KvLayout& layout);

// Of protocol and identity: the `compatibility` of tickets.
Digest compatibility(std::string_view identity);

// kInvalidArgument, with both named, unless they are equal.
Status check_identity(std::string_view theirs, std::string_view ours);

}  // namespace wideep::kv
