#include "tokenizer/pre_tokenizer.h"

#include <array>
#include <string>
#include <utility>

namespace wideep::tokenizer {
namespace {

constexpr int kDepthMax = 4;

bool flag(const Json& json, std::string_view key, bool otherwise) {
  const Json* member = json.find(key);
  return member == nullptr ? otherwise : member->as_bool().value_or(otherwise);
}

// The text that covers `a` and `b`, which follow each other in one text.
std::string_view joined(std::string_view a, std::string_view b) {
  return {a.data(), a.size() + b.size()};
}

}  // namespace

Result<PreTokenizer> PreTokenizer::from_json(const Json& json) {
  PreTokenizer result;
  WD_TRY(result.add(json, 0));
  if (!result.has_byte_level_) {
    return invalid_argument("pre_tokenizer: no ByteLevel step; only byte-level BPE is supported");
  }
  return result;
}

Status PreTokenizer::add(const Json& json, int depth) {
  const Json* type = json.find("type");
  const std::string* kind = type == nullptr ? nullptr : type->as_string();
  if (kind == nullptr) return invalid_argument("pre_tokenizer: no type");
  if (has_byte_level_) {
    return invalid_argument("pre_tokenizer: {} after ByteLevel is not supported", *kind);
  }
  if (steps_.size() >= kStepsMax) {
    return invalid_argument("pre_tokenizer: more than {} steps", kStepsMax);
  }
  if (*kind == "Sequence") {
    const Json* list = json.find("pretokenizers");
    if (list == nullptr || !list->is_array() || depth >= kDepthMax) {
      return invalid_argument("pre_tokenizer: Sequence without a list, or nested too deep");
    }
    for (const Json& part : *list->as_array())
      WD_TRY(add(part, depth + 1));
    return {};
  }
  if (*kind == "Split") return add_split(json);
  if (*kind == "Digits") {
    const bool individual = flag(json, "individual_digits", false);
    steps_.push_back({Splitter::scanner(individual ? scan_digit : scan_digits)});
    return {};
  }
  if (*kind == "ByteLevel") return add_byte_level(json);
  return invalid_argument("pre_tokenizer: type '{}' is not supported", *kind);
}

Status PreTokenizer::add_split(const Json& json) {
  const Json* pattern = json.find("pattern");
  const Json* regex = pattern == nullptr ? nullptr : pattern->find("Regex");
  const Json* text = pattern == nullptr ? nullptr : pattern->find("String");
  WD_ASSIGN_OR_RETURN(const Behavior behavior, behavior_of(json.find("behavior")));
  const bool invert = flag(json, "invert", false);
  if (regex != nullptr && regex->is_string()) {
    if (const Scanner scanner = find_scanner(*regex->as_string())) {
      steps_.push_back({Splitter::scanner(scanner), behavior, invert});
      return {};
    }
    auto splitter = Splitter::regex(*regex->as_string());
    if (!splitter) return with_context(splitter.error(), "pre_tokenizer: Split");
    steps_.push_back({std::move(*splitter), behavior, invert});
    return {};
  }
  if (text != nullptr && text->is_string()) {
    steps_.push_back({Splitter::literal(*text->as_string()), behavior, invert});
    return {};
  }
  return invalid_argument("pre_tokenizer: Split needs a pattern with Regex or String");
}

Status PreTokenizer::add_byte_level(const Json& json) {
  if (flag(json, "add_prefix_space", true)) {
    return invalid_argument("pre_tokenizer: ByteLevel with add_prefix_space is not supported");
  }
  if (flag(json, "use_regex", true)) steps_.push_back({Splitter::scanner(scan_gpt2)});
  has_byte_level_ = true;
  return {};
}

Result<PreTokenizer::Behavior> PreTokenizer::behavior_of(const Json* json) {
  static constexpr std::array<std::pair<std::string_view, Behavior>, 5> kNames = {{
      {"Isolated", Behavior::kIsolated},
      {"Removed", Behavior::kRemoved},
      {"Contiguous", Behavior::kContiguous},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
  }};
  const std::string* wanted = json == nullptr ? nullptr : json->as_string();
  if (wanted == nullptr) return invalid_argument("pre_tokenizer: Split without a behavior");
  for (const auto& [name, behavior] : kNames) {
    if (name == *wanted) return behavior;
  }
  return invalid_argument("pre_tokenizer: Split behavior '{}' is not supported", *wanted);
}

Status PreTokenizer::apply(const Step& step,
                           std::string_view text,
                           std::vector<std::string_view>& pieces) {
  bool previous_was_delimiter = false;
  bool first = true;
  return step.splitter.for_each_part(text, [&](const Splitter::Part& part) {
    const bool delimiter = part.is_match != step.invert;
    const bool joins_previous =
        !first &&
        ((step.behavior == Behavior::kContiguous && delimiter == previous_was_delimiter) ||
         (step.behavior == Behavior::kMergedWithPrevious && delimiter && !previous_was_delimiter) ||
         (step.behavior == Behavior::kMergedWithNext && !delimiter && previous_was_delimiter));
    if (joins_previous) {
      pieces.back() = joined(pieces.back(), part.text);
    } else if (!delimiter || step.behavior != Behavior::kRemoved) {
      pieces.push_back(part.text);
    }
    previous_was_delimiter = delimiter;
    first = false;
  });
}

Status PreTokenizer::split(std::string_view text, FunctionRef<void(std::string_view)> piece) const {
  std::vector<std::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  std::vector<std::string_view> next;
  for (const Step& step : steps_) {
    next.clear();
    for (const std::string_view part : pieces)
      WD_TRY(apply(step, part, next));
    pieces.swap(next);
  }
  for (const std::string_view part : pieces)
    piece(part);
  return {};
}

}  // namespace wideep::tokenizer
