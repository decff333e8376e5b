#include "cmd/speculative_config.h"

#include "base/json.h"

namespace wideep::cmd {
namespace {

constexpr std::string_view kFlag = "--speculative-config";

}  // namespace

Result<int64_t> parse_speculative_config(std::string_view json) {
  if (json.empty()) return 0;
  const auto config = parse_json(json);
  if (!config) return with_context(config.error(), kFlag);
  if (!config->is_object()) return invalid_argument("{}: a JSON object is expected", kFlag);
  for (const auto& [key, value] : *config->as_object()) {
    if (key != "method" && key != "num_speculative_tokens")
      return invalid_argument("{}: '{}' is not implemented", kFlag, key);
  }
  const Json* method = config->find("method");
  const std::string* name = method == nullptr ? nullptr : method->as_string();
  if (name == nullptr)
    return invalid_argument("{}: 'method' is missing (mtp or deepseek_mtp)", kFlag);
  if (*name != "mtp" && *name != "deepseek_mtp") {
    return invalid_argument("{}: method '{}' is not implemented (mtp and deepseek_mtp are)", kFlag,
                            *name);
  }
  const Json* count = config->find("num_speculative_tokens");
  if (count == nullptr) return 1;
  if (count->as_int() != 1) {
    return invalid_argument(
        "{}: num_speculative_tokens {} is not implemented: the draft layer guesses 1", kFlag,
        count->dump());
  }
  return 1;
}

}  // namespace wideep::cmd
