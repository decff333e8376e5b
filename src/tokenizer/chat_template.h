// A model's chat template: messages to the text of a prompt, in segments that say where each part
// came from.
//
// The rule that makes user text safe: text written in the template, and the special tokens of
// tokenizer_config.json (bos_token ...), are template text; every string of the variables
// (messages, tools, kwargs) is content. The marks follow each byte through all string operations,
// so that Tokenizer::encode_chat can take control tokens from template text only. What JSON, repr
// or strftime makes out of content is content as a whole.
//
// The language is the sandboxed Jinja subset of template_parser.h and template_functions.h; it is
// Hugging Face's (trim_blocks, lstrip_blocks, break and continue, tojson without escapes) but for
// strftime_now, which tells UTC. Costs are bounded by RenderLimits.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/template_ast.h"
#include "tokenizer/template_budget.h"
#include "tokenizer/template_parser.h"
#include "tokenizer/text_segment.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

struct RenderOptions {
  RenderLimits limits{};
  int64_t now_unix_seconds = 0;  // what strftime_now tells
};

// Immutable; any number of threads may render.
class ChatTemplate {
 public:
  // `trusted`: an object of variables that are template text. kInvalidArgument with the line of a
  // mistake or of what is not supported.
  static Result<ChatTemplate> parse(std::string_view source,
                                    Json trusted = Json::Object{},
                                    const ParseLimits& limits = {});

  // The template `name` of a model: chat_template.jinja if it is there (for "default"), else the
  // chat_template of tokenizer_config.json, a string or a list of {name, template}. kNotFound if
  // the model has none.
  static Result<ChatTemplate> load(const std::string& model_dir, std::string_view name = "default");

  // `variables` is an object: messages, tools, add_generation_prompt ... Trusted variables cannot
  // be overridden by it. Neighbouring segments differ in origin. kInvalidArgument for what the
  // template itself refuses (raise_exception) or cannot do, kExhausted beyond the limits.
  Result<std::vector<TextSegment>> render(const Json& variables,
                                          const RenderOptions& options = {}) const;

 private:
  ChatTemplate(Block block, Json trusted);

  Block block_;
  Json trusted_;
};

}  // namespace wideep::tokenizer
