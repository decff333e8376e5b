// Cuts a text into the pieces that BPE works on alone: the "pre_tokenizer" of tokenizer.json.
//
// Known: Sequence, Split (Regex or String; all behaviours; invert), Digits, ByteLevel (must come
// last, without add_prefix_space). Anything else is refused by its name. Immutable, thread-safe.
#pragma once

#include "base/function_ref.h"
#include "base/json.h"
#include "base/result.h"
#include "tokenizer/splitter.h"

#include <string_view>
#include <vector>

namespace wideep::tokenizer {

class PreTokenizer {
 public:
  static Result<PreTokenizer> from_json(const Json& json);

  // Calls `piece` with the pieces of well-formed `text`, in order. kExhausted if a pattern needs
  // too many steps.
  Status split(std::string_view text, FunctionRef<void(std::string_view)> piece) const;

  static constexpr size_t kStepsMax = 16;

 private:
  // What becomes of a match (the delimiter) and of the gap beside it.
  enum class Behavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };

  struct Step {
    Splitter splitter;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;  // gaps are the delimiters
  };

  Status add(const Json& json, int depth);
  Status add_split(const Json& json);
  Status add_byte_level(const Json& json);
  static Result<Behavior> behavior_of(const Json* json);
  static Status apply(const Step& step,
                      std::string_view text,
                      std::vector<std::string_view>& pieces);

  std::vector<Step> steps_;
  bool has_byte_level_ = false;
};

}  // namespace wideep::tokenizer
