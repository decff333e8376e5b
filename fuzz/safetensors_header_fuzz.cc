// modules: base model
// The header of a safetensors file: whatever is accepted must be consistent.
#include "base/check.h"
#include "model/safetensors.h"

#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const int64_t data_bytes : {int64_t{0}, int64_t{12}, int64_t{1} << 40}) {
    const auto tensors = wideep::model::parse_safetensors_header(text, data_bytes);
    if (!tensors) continue;
    int64_t position = 0;
    for (const auto& tensor : *tensors) {
      WD_CHECK(tensor.begin == position);
      WD_CHECK(tensor.end >= tensor.begin);
      position = tensor.end;
    }
    WD_CHECK(position == data_bytes);
  }
  return 0;
}
