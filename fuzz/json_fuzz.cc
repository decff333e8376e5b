// modules: base
// Whatever parses must be written and read back as the same value.
#include "base/check.h"
#include "base/json.h"
#include "base/yaml.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto parsed = wideep::parse_json(text)) {
    const std::string written = parsed->dump();
    const auto again = wideep::parse_json(written);
    WD_CHECK(again.has_value());
    WD_CHECK(again->dump() == written);
  }
  static_cast<void>(wideep::parse_yaml(text));
  return 0;
}
