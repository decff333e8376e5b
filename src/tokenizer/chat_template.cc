#include "tokenizer/chat_template.h"

#include "base/file.h"
#include "tokenizer/template_interpreter.h"
#include "tokenizer/tokenizer.h"

#include <optional>
#include <utility>

namespace wideep::tokenizer {
namespace {

constexpr int64_t kConfigBytesMax = 64 << 20;

// The special tokens that Hugging Face gives to templates, as strings.
Json special_tokens(const Json& config) {
  Json tokens{Json::Object{}};
  for (const std::string_view key : {"bos_token", "eos_token", "unk_token", "sep_token",
                                     "pad_token", "cls_token", "mask_token"}) {
    if (const auto text = token_text(config, key)) tokens.set(key, *text);
  }
  return tokens;
}

// The source in "chat_template", a string or a list of {name, template}.
std::optional<std::string> named_template(const Json& config, std::string_view name) {
  const Json* member = config.find("chat_template");
  if (member == nullptr) return std::nullopt;
  if (member->is_string() && name == "default") return *member->as_string();
  if (!member->is_array()) return std::nullopt;
  for (const Json& entry : *member->as_array()) {
    const Json* entry_name = entry.find("name");
    const Json* source = entry.find("template");
    if (entry_name == nullptr || source == nullptr || !source->is_string()) continue;
    if (entry_name->as_string() != nullptr && *entry_name->as_string() == name) {
      return *source->as_string();
    }
  }
  return std::nullopt;
}

Status add_variables(const Json& json,
                     TextOrigin origin,
                     Budget& budget,
                     Interpreter::Variables& variables) {
  for (const auto& [name, member] : *json.as_object()) {
    WD_ASSIGN_OR_RETURN(Value value, Value::from_json(member, origin, budget));
    variables.emplace_back(name, std::move(value));
  }
  return {};
}

}  // namespace

ChatTemplate::ChatTemplate(Block block, Json trusted)
    : block_(std::move(block)), trusted_(std::move(trusted)) {}

Result<ChatTemplate> ChatTemplate::parse(std::string_view source,
                                         Json trusted,
                                         const ParseLimits& limits) {
  if (!trusted.is_object()) return invalid_argument("chat template: trusted is no object");
  auto block = parse_template(source, limits);
  if (!block) return with_context(block.error(), "chat template");
  return ChatTemplate(std::move(*block), std::move(trusted));
}

Result<ChatTemplate> ChatTemplate::load(const std::string& model_dir, std::string_view name) {
  Json config{Json::Object{}};
  const std::string config_path = model_dir + "/tokenizer_config.json";
  if (auto text = read_file(config_path, kConfigBytesMax)) {
    auto json = parse_json(*text);
    if (!json) return with_context(json.error(), config_path);
    config = std::move(*json);
  } else if (text.error().code != ErrorCode::kNotFound) {
    return std::unexpected(text.error());
  }
  std::optional<std::string> source;
  if (name == "default") {
    auto file = read_file(model_dir + "/chat_template.jinja", ParseLimits{}.source_bytes_max);
    if (file) {
      source = std::move(*file);
    } else if (file.error().code != ErrorCode::kNotFound) {
      return std::unexpected(file.error());
    }
  }
  if (!source) source = named_template(config, name);
  if (!source) return error(ErrorCode::kNotFound, "{}: no chat template '{}'", model_dir, name);
  return parse(*source, special_tokens(config));
}

Result<std::vector<TextSegment>> ChatTemplate::render(const Json& variables,
                                                      const RenderOptions& options) const {
  if (!variables.is_object()) return invalid_argument("chat template: variables are no object");
  Budget budget(options.limits);
  Interpreter::Variables all;
  // Trusted ones first: the first of equal names is found.
  WD_TRY(add_variables(trusted_, TextOrigin::kTemplate, budget, all));
  WD_TRY(add_variables(variables, TextOrigin::kContent, budget, all));
  Interpreter interpreter(budget, options.now_unix_seconds);
  auto text = interpreter.run(block_, std::move(all));
  if (!text) return with_context(text.error(), "chat template");
  return text->segments();
}

}  // namespace wideep::tokenizer
