// Options of a command: flags, environment variables and a YAML file, one declaration for all
// three.
//
//   OptionSet options("serve", "Serve a model over the OpenAI API.");
//   options.add("--max-model-len", &max_model_len,
//               {.group = "Engine", .help = "Longest context, in tokens."});
//
// --max-model-len can then also come from WIDEEP_MAX_MODEL_LEN or from `max-model-len:` (or
// max_model_len) in the file of --config. A flag beats the environment, which beats the file, which
// beats the default. A switch (bool) has a twin --no-…. Integers take 1k = 1000, 1K = 1024,
// likewise m/M, g/G, t/T. This is the only place that reads the environment.
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideep {

struct OptionText {
  std::string group;
  std::string help;                       // one or two sentences
  std::string value_name = {};            // shown as --flag VALUE; chosen from the type if empty
  std::vector<std::string> choices = {};  // other values are refused, with the list
  std::string alias = {};                 // a second spelling, e.g. "-tp"
  // Of integers. Without `min`: 0, or the default if that is less.
  std::optional<int64_t> min = {};
  std::optional<int64_t> max = {};
};

class OptionSet {
 public:
  OptionSet(std::string command, std::string summary);

  // `target` holds the default and must outlive parse().
  void add(std::string flag, std::string* target, OptionText text);
  void add(std::string flag, bool* target, OptionText text);
  void add(std::string flag, int64_t* target, OptionText text);
  void add(std::string flag, int32_t* target, OptionText text);
  void add(std::string flag, double* target, OptionText text);
  void add(std::string flag, std::chrono::seconds* target, OptionText text);
  void add(std::string flag, std::vector<std::string>* target, OptionText text);  // repeatable
  // An argument without a flag, in order of declaration.
  void add_positional(std::string name, std::string* target, std::string help, bool required);
  // The rest of the line, for commands that take many.
  void add_rest(std::string name, std::vector<std::string>* target, const std::string& help);
  // A flag of vLLM that users will try and that wideep does not have: refused with this reason.
  // With `harmless_values` it is accepted when it has one of those (a switch: none).
  void refuse(std::string flag, std::string reason, std::vector<std::string> harmless_values = {});
  // A switch of vLLM that asks for what wideep does in any case: it changes nothing. Its opposite,
  // --no-…, is refused with this reason.
  void accept(std::string flag, std::string reason);

  // What parse() found out.
  enum class Outcome { kRun, kHelpShown };
  // `arguments` are those after the command's name. Writes help for --help (all), --help=WORD
  // (flags and groups that contain WORD) into `help`. Errors name where the value came from and
  // suggest the nearest flag.
  Result<Outcome> parse(std::span<const std::string> arguments, std::string* help);

  // Whether the option was set by flag, environment or file. `flag` as declared.
  bool was_set(std::string_view flag) const;
  // Arguments that give another process the present values: positionals first, then a flag for
  // whatever differs from its default. That process must not see this one's variables: an option
  // that is at its default here would take its value from there.
  std::vector<std::string> arguments() const;
  std::string help(std::string_view search = "") const;
  // All flags, for shell completion.
  std::vector<std::string> flags() const;

  const std::string& command() const { return command_; }

  const std::string& summary() const { return summary_; }

 private:
  struct Option {
    std::string flag;
    OptionText text;
    std::string default_text;
    bool is_switch = false;
    bool is_list = false;
    std::function<Status(const std::string&)> set;  // one value; a list option gets each in turn
    std::function<std::vector<std::string>()> get;  // the values that set() would take
    std::vector<std::string> default_values = {};
    std::function<void()> clear;  // before values of a stronger source
    bool was_set = false;
  };

  struct Positional {
    std::string name;
    std::string help;
    bool required = false;
    std::string* target = nullptr;
  };

  struct Refusal {
    std::string flag;
    std::string reason;
    std::vector<std::string> harmless_values;
    bool is_met = false;  // a switch that changes nothing
  };

  void add_option(Option option);
  template <typename Integer>
  void add_integer(std::string&& flag, Integer* target, OptionText text);
  Option* find(std::string_view flag);
  Status assign(Option& option, std::span<const std::string> values, std::string_view origin);
  Status apply_file(const std::string& path);
  Status apply_environment();
  Status apply_arguments(std::span<const std::string> arguments);
  Status apply_flag(std::span<const std::string> arguments, size_t* next);
  Status take_positionals(std::span<const std::string> values);
  std::unexpected<Error> unknown_flag(std::string_view flag) const;

  std::string command_;
  std::string summary_;
  std::string config_path_;
  std::vector<Option> options_;
  std::vector<Positional> positionals_;
  std::vector<Refusal> refusals_;
  std::string rest_name_;
  std::vector<std::string>* rest_ = nullptr;
};

// "12", "12k" = 12000, "12K" = 12288, …; nothing if it is no such number or does not fit.
std::optional<int64_t> parse_human_integer(std::string_view text);
// The nearest of `candidates` to a mistyped word, if any is near.
std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string> candidates);
// An environment variable, if set. For start-up code only.
std::optional<std::string> environment_variable(const std::string& name);

}  // namespace wideep
