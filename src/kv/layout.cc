#include "kv/layout.h"

#include <fmt/format.h>

namespace wideep::kv {

std::string KvLayout::describe() const {
  std::string text;
  for (const CacheGroup& group : groups) {
    if (!text.empty()) text += "; ";
    text += fmt::format("{}: {} layers x {} bytes, {} tokens a block", group.name, group.num_layers,
                        group.token_bytes, group.block_tokens);
    if (group.retention == Retention::kWindow)
      text += fmt::format(", the last {} tokens", group.window_tokens);
    if (group.retention == Retention::kState) text += ", one state a sequence";
  }
  return text;
}

}  // namespace wideep::kv
