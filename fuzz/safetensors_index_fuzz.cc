// modules: base model
// The index of a sharded checkpoint: no accepted shard name leaves the folder.
#include "base/check.h"
#include "model/checkpoint.h"

#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto index = wideep::model::parse_index(text);
  if (!index) return 0;
  for (const auto& [tensor, shard] : *index) {
    WD_CHECK(shard.find('/') == std::string::npos);
    WD_CHECK(!shard.starts_with('.'));
    WD_CHECK(shard.ends_with(".safetensors"));
  }
  return 0;
}
