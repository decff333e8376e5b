#include "kv/identity.h"

#include <fmt/format.h>

namespace wideep::kv {

std::string identity_text(std::string_view model_fingerprint,
                          std::string_view numeric_config,
                          const KvLayout& layout) {
  return fmt::format("model {}; {}; {}", model_fingerprint, numeric_config, layout.describe());
}

Digest compatibility(std::string_view identity) {
  const std::string text = fmt::format("wideep-kv {}; {}", kProtocol, identity);
  return sha256(std::as_bytes(std::span(text)));
}

Status check_identity(std::string_view theirs, std::string_view ours) {
  if (theirs == ours) return {};
  return invalid_argument("the KV of the two sides does not fit: there '{}', here '{}'", theirs,
                          ours);
}

}  // namespace wideep::kv
