#include "model/golden_set.h"

#include "model/safetensors.h"

#include <cstring>

namespace wideep::model {
namespace {

constexpr int64_t kTensorBytesMax = int64_t{1} << 30;

Result<GoldenTensor> read_tensor(const SafetensorsFile& file, const TensorEntry& entry) {
  const bool is_ids = entry.dtype == Dtype::kI32;
  if (!is_ids && entry.dtype != Dtype::kF32) {
    return invalid_argument("{}: tensor '{}': dtype {}, F32 or I32 expected", file.name(),
                            entry.name, name(entry.dtype));
  }
  if (entry.bytes() > kTensorBytesMax) {
    return invalid_argument("{}: tensor '{}': {} bytes, at most {} allowed", file.name(),
                            entry.name, entry.bytes(), kTensorBytesMax);
  }
  GoldenTensor tensor{.shape = entry.shape, .is_ids = is_ids};
  std::vector<std::byte> bytes(static_cast<size_t>(entry.bytes()));
  WD_TRY(file.read(entry, 0, bytes));
  tensor.values.resize(bytes.size() / 4);
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    if (is_ids) {
      int32_t id = 0;
      std::memcpy(&id, &bytes[i * 4], 4);
      tensor.values[i] = static_cast<float>(id);
    } else {
      std::memcpy(&tensor.values[i], &bytes[i * 4], 4);
    }
  }
  return tensor;
}

Result<std::vector<TokenId>> take_tokens(GoldenPrompt& prompt, const std::string& name) {
  const auto it = prompt.tensors.find(name);
  if (it == prompt.tensors.end() || !it->second.is_ids || it->second.values.empty()) {
    return invalid_argument("golden.safetensors: no ids '{}'", name);
  }
  std::vector<TokenId> tokens;
  for (const float value : it->second.values)
    tokens.push_back(TokenId{static_cast<int32_t>(value)});
  prompt.tensors.erase(it);
  return tokens;
}

}  // namespace

Result<std::vector<GoldenPrompt>> load_golden_set(const std::string& folder) {
  WD_ASSIGN_OR_RETURN(const SafetensorsFile file,
                      SafetensorsFile::open(folder + "/expected/golden.safetensors"));
  std::vector<GoldenPrompt> prompts;
  while (true) {
    GoldenPrompt prompt;
    const std::string prefix = fmt::format("prompt{}.", prompts.size());
    for (const TensorEntry& entry : file.tensors()) {
      if (!entry.name.starts_with(prefix)) continue;
      WD_ASSIGN_OR_RETURN(prompt.tensors[entry.name.substr(prefix.size())],
                          read_tensor(file, entry));
    }
    if (prompt.tensors.empty()) break;
    WD_ASSIGN_OR_RETURN(prompt.input, take_tokens(prompt, "input_ids"));
    WD_ASSIGN_OR_RETURN(prompt.greedy, take_tokens(prompt, "greedy_ids"));
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) return invalid_argument("{}: no prompt0.*", file.name());
  return prompts;
}

}  // namespace wideep::model
