#include "base/options.h"

#include "base/check.h"
#include "base/file.h"
#include "base/yaml.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <map>

namespace wideep {
namespace {

constexpr const char* kConfigFlag = "--config";

// "--max-model-len" -> "WIDEEP_MAX_MODEL_LEN"
std::string variable_name(std::string_view flag) {
  std::string name = "WIDEEP";
  for (const char c : flag.substr(1)) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

// "max_model_len" or "max-model-len" -> "--max-model-len"
std::string flag_of_key(std::string_view key) {
  std::string flag = "--" + std::string(key);
  std::ranges::replace(flag, '_', '-');
  return flag;
}

std::optional<bool> parse_switch(std::string_view text) {
  for (const char* yes : {"1", "on", "yes", "true", "enabled", "True"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"0", "off", "no", "false", "disabled", "False"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// A scalar of the configuration file as text that the flag's parser reads.
std::string text_of(const Json& value) {
  if (const std::string* text = value.as_string()) return *text;
  return value.dump();
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

// Folds `text` into lines that start at column `indent` and end before 100.
std::string wrap(std::string_view text, size_t indent) {
  constexpr size_t kWidth = 100;
  std::string out;
  size_t column = indent;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    if (column > indent && column + 1 + word.size() > kWidth) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  return out;
}

bool contains_ignoring_case(std::string_view text, std::string_view word) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  return !std::ranges::search(text, word, same).empty();
}

}  // namespace

std::optional<int64_t> parse_human_integer(std::string_view text) {
  static const std::map<char, int64_t> kUnits = {
      {'k', 1000},      {'m', 1000000},   {'g', 1000000000}, {'t', 1000000000000},
      {'K', 1LL << 10}, {'M', 1LL << 20}, {'G', 1LL << 30},  {'T', 1LL << 40}};
  int64_t unit = 1;
  if (!text.empty()) {
    if (const auto it = kUnits.find(text.back()); it != kUnits.end()) {
      unit = it->second;
      text.remove_suffix(1);
    }
  }
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code == std::errc{} && end == text.data() + text.size()) {
    int64_t scaled = 0;
    if (__builtin_mul_overflow(value, unit, &scaled)) return std::nullopt;
    return scaled;
  }
  const auto number = parse_number(text);  // 25.6k
  if (unit == 1 || !number || *number * static_cast<double>(unit) > 9e15) return std::nullopt;
  return static_cast<int64_t>(*number * static_cast<double>(unit));
}

std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string> candidates) {
  const auto nearest = std::ranges::min_element(
      candidates, {}, [&](const std::string& candidate) { return edit_distance(word, candidate); });
  if (nearest == candidates.end()) return std::nullopt;
  const size_t distance = edit_distance(word, *nearest);
  const bool is_near = distance <= 2 || distance * 3 <= word.size();
  return is_near ? std::optional(*nearest) : std::nullopt;
}

std::optional<std::string> environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe): start-up only
  return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
}

OptionSet::OptionSet(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {
  add(kConfigFlag, &config_path_,
      {.group = "General",
       .help = "YAML file with a key for each flag, e.g. max-model-len: 8k.",
       .value_name = "FILE"});
}

void OptionSet::add_option(Option option) {
  WD_CHECK(option.flag.starts_with("--"));
  WD_CHECK(find(option.flag) == nullptr);
  option.default_values = option.get();
  options_.push_back(std::move(option));
}

void OptionSet::add(std::string flag, std::string* target, OptionText text) {
  if (text.value_name.empty()) text.value_name = "TEXT";
  add_option({.flag = std::move(flag),
              .text = std::move(text),
              .default_text = *target,
              .set = [target](const std::string& value) -> Status {
                *target = value;
                return {};
              },
              .get = [target] { return std::vector{*target}; }});
}

void OptionSet::add(std::string flag, bool* target, OptionText text) {
  add_option({.flag = std::move(flag),
              .text = std::move(text),
              .default_text = *target ? "on" : "off",
              .is_switch = true,
              .set = [target](const std::string& value) -> Status {
                const auto parsed = parse_switch(value);
                if (!parsed) return invalid_argument("'{}' is neither on nor off", value);
                *target = *parsed;
                return {};
              },
              .get = [target] { return std::vector<std::string>{*target ? "on" : "off"}; }});
}

template <typename Integer>
void OptionSet::add_integer(std::string&& flag, Integer* target, OptionText text) {
  if (text.value_name.empty()) text.value_name = "N";
  const int64_t min = text.min.value_or(std::min<int64_t>(0, *target));
  const int64_t max = text.max.value_or(std::numeric_limits<Integer>::max());
  add_option({.flag = std::move(flag),
              .text = std::move(text),
              .default_text = std::to_string(*target),
              .set = [target, min, max](const std::string& value) -> Status {
                const auto parsed = parse_human_integer(value);
                if (!parsed) return invalid_argument("'{}' is not an integer", value);
                if (*parsed < min)
                  return invalid_argument("at least {} is expected, not {}", min, value);
                if (*parsed > max)
                  return invalid_argument("at most {} is expected, not {}", max, value);
                *target = static_cast<Integer>(*parsed);
                return {};
              },
              .get = [target] { return std::vector{std::to_string(*target)}; }});
}

void OptionSet::add(std::string flag, int64_t* target, OptionText text) {
  add_integer(std::move(flag), target, std::move(text));
}

void OptionSet::add(std::string flag, int32_t* target, OptionText text) {
  add_integer(std::move(flag), target, std::move(text));
}

void OptionSet::add(std::string flag, double* target, OptionText text) {
  if (text.value_name.empty()) text.value_name = "X";
  add_option({.flag = std::move(flag),
              .text = std::move(text),
              .default_text = fmt::format("{}", *target),
              .set = [target](const std::string& value) -> Status {
                const auto parsed = parse_number(value);
                if (!parsed) return invalid_argument("'{}' is not a number", value);
                *target = *parsed;
                return {};
              },
              .get = [target] { return std::vector{fmt::format("{}", *target)}; }});
}

void OptionSet::add(std::string flag, std::chrono::seconds* target, OptionText text) {
  if (text.value_name.empty()) text.value_name = "SECONDS";
  add_option({.flag = std::move(flag),
              .text = std::move(text),
              .default_text = std::to_string(target->count()),
              .set = [target](const std::string& value) -> Status {
                const auto parsed = parse_human_integer(value);
                if (!parsed || *parsed < 0)
                  return invalid_argument("'{}' is no number of seconds", value);
                *target = std::chrono::seconds(*parsed);
                return {};
              },
              .get = [target] { return std::vector{std::to_string(target->count())}; }});
}

void OptionSet::add(std::string flag, std::vector<std::string>* target, OptionText text) {
  if (text.value_name.empty()) text.value_name = "TEXT";
  add_option({.flag = std::move(flag),
              .text = std::move(text),
              .default_text = fmt::format("{}", fmt::join(*target, ",")),
              .is_list = true,
              .set = [target](const std::string& value) -> Status {
                target->push_back(value);
                return {};
              },
              .get = [target] { return *target; },
              .clear = [target] { target->clear(); }});
}

void OptionSet::add_positional(std::string name,
                               std::string* target,
                               std::string help,
                               bool required) {
  positionals_.push_back({std::move(name), std::move(help), required, target});
}

void OptionSet::add_rest(std::string name,
                         std::vector<std::string>* target,
                         const std::string& help) {
  rest_name_ = std::move(name);
  rest_ = target;
  summary_ += " " + help;
}

void OptionSet::refuse(std::string flag,
                       std::string reason,
                       std::vector<std::string> harmless_values) {
  refusals_.push_back({std::move(flag), std::move(reason), std::move(harmless_values)});
}

void OptionSet::accept(std::string flag, std::string reason) {
  refusals_.push_back({"--no-" + flag.substr(2), reason, {}});
  refusals_.push_back({std::move(flag), std::move(reason), {}, true});
}

OptionSet::Option* OptionSet::find(std::string_view flag) {
  const auto it = std::ranges::find_if(options_, [&](const Option& option) {
    return option.flag == flag || (!option.text.alias.empty() && option.text.alias == flag);
  });
  return it == options_.end() ? nullptr : &*it;
}

bool OptionSet::was_set(std::string_view flag) const {
  const Option* option = const_cast<OptionSet*>(this)->find(flag);
  WD_CHECK(option != nullptr);
  return option->was_set;
}

Status OptionSet::assign(Option& option,
                         std::span<const std::string> values,
                         std::string_view origin) {
  if (option.clear) option.clear();
  option.was_set = true;
  for (const std::string& value : values) {
    const std::vector<std::string>& choices = option.text.choices;
    if (!choices.empty() && std::ranges::find(choices, value) == choices.end()) {
      return invalid_argument("{}: '{}' is not one of {}", origin, value, fmt::join(choices, ", "));
    }
    if (Status status = option.set(value); !status) return with_context(status.error(), origin);
  }
  return {};
}

Status OptionSet::apply_file(const std::string& path) {
  WD_ASSIGN_OR_RETURN(const std::string text, read_file(path, kYamlBytesMax));
  const auto document = parse_yaml(text);
  if (!document) return with_context(document.error(), path);
  if (document->is_null()) return {};
  const Json::Object* members = document->as_object();
  if (members == nullptr) return invalid_argument("{}: a map of options is expected", path);
  for (const auto& [key, value] : *members) {
    Option* option = find(flag_of_key(key));
    if (option == nullptr) {
      if (auto status = unknown_flag(flag_of_key(key)); true)
        return with_context(status.error(), path);
    }
    std::vector<std::string> values;
    if (const Json::Array* items = value.as_array()) {
      for (const Json& item : *items)
        values.push_back(text_of(item));
    } else {
      values.push_back(text_of(value));
    }
    if (values.size() != 1 && !option->is_list) {
      return invalid_argument("{}: {}: one value is expected", path, key);
    }
    WD_TRY(assign(*option, values, fmt::format("{}: {}", path, key)));
  }
  return {};
}

Status OptionSet::apply_environment() {
  for (Option& option : options_) {
    const std::string variable = variable_name(option.flag);
    if (const auto value = environment_variable(variable)) {
      WD_TRY(assign(option, std::span(&*value, 1), variable));
    }
  }
  return {};
}

std::unexpected<Error> OptionSet::unknown_flag(std::string_view flag) const {
  const std::vector<std::string> known = flags();
  if (const auto nearest = nearest_word(flag, known)) {
    return invalid_argument("unknown option {}; did you mean {}?", flag, *nearest);
  }
  return invalid_argument("unknown option {}; `wideep {} --help=WORD` searches the options", flag,
                          command_);
}

Status OptionSet::apply_flag(std::span<const std::string> arguments, size_t* next) {
  const std::string& argument = arguments[(*next)++];
  const size_t equals = argument.find('=');
  std::string flag = argument.substr(0, equals);
  if (flag.starts_with("--")) std::ranges::replace(flag, '_', '-');
  std::optional<std::string> value;
  if (equals != std::string::npos) value = argument.substr(equals + 1);
  const auto take_next = [&] {
    if (!value && *next < arguments.size() && !arguments[*next].starts_with("--")) {
      value = arguments[(*next)++];
    }
  };

  if (const auto refusal = std::ranges::find(refusals_, flag, &Refusal::flag);
      refusal != refusals_.end()) {
    if (refusal->is_met && !value) return {};
    if (!refusal->harmless_values.empty()) take_next();
    const auto& harmless = refusal->harmless_values;
    if (value && std::ranges::find(harmless, *value) != harmless.end()) return {};
    return invalid_argument("{} is not implemented: {}", flag, refusal->reason);
  }
  const bool negated = flag.starts_with("--no-");
  Option* option = find(negated ? "--" + flag.substr(5) : flag);
  if (option == nullptr || (negated && !option->is_switch)) return unknown_flag(flag);
  if (option->is_switch) {
    if (negated && value) return invalid_argument("{} takes no value", flag);
    const std::string state = negated ? "off" : value.value_or("on");
    return assign(*option, std::span(&state, 1), flag);
  }
  take_next();
  if (!value)
    return invalid_argument("{} needs a value: {} {}", flag, flag, option->text.value_name);
  if (option->is_list && option->was_set) return option->set(*value);
  return assign(*option, std::span(&*value, 1), flag);
}

Status OptionSet::apply_arguments(std::span<const std::string> arguments) {
  for (Option& option : options_) {
    if (option.is_list)
      option.was_set = false;  // flags replace what the file or the environment said
  }
  std::vector<std::string> values;
  for (size_t next = 0; next < arguments.size();) {
    if (arguments[next] == "--") {
      values.insert(values.end(), arguments.begin() + static_cast<ptrdiff_t>(next) + 1,
                    arguments.end());
      break;
    }
    if (arguments[next].size() > 1 && arguments[next].starts_with("-")) {
      WD_TRY(apply_flag(arguments, &next));
    } else {
      values.push_back(arguments[next++]);
    }
  }
  return take_positionals(values);
}

Status OptionSet::take_positionals(std::span<const std::string> values) {
  for (const Positional& positional : positionals_) {
    if (values.empty()) {
      if (positional.required) {
        return invalid_argument("{} is missing: wideep {} {}", positional.name, command_,
                                positional.name);
      }
      continue;
    }
    *positional.target = values.front();
    values = values.subspan(1);
  }
  if (rest_ != nullptr) {
    rest_->assign(values.begin(), values.end());
  } else if (!values.empty()) {
    return invalid_argument("unexpected argument '{}'", values.front());
  }
  return {};
}

Result<OptionSet::Outcome> OptionSet::parse(std::span<const std::string> arguments,
                                            std::string* help) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") break;
    if (argument == "--help" || argument == "-h" || argument.starts_with("--help=")) {
      const std::string search = argument.starts_with("--help=") ? argument.substr(7) : "";
      *help = this->help(search == "all" ? "" : search);
      return Outcome::kHelpShown;
    }
    // The file is weaker than the flags around it, so it is found first.
    if (argument == "--config" && i + 1 < arguments.size()) config_path_ = arguments[i + 1];
    if (argument.starts_with("--config=")) config_path_ = argument.substr(9);
  }
  if (config_path_.empty()) {
    config_path_ = environment_variable(variable_name("--config")).value_or("");
  }
  if (!config_path_.empty()) WD_TRY(apply_file(std::string(config_path_)));
  WD_TRY(apply_environment());
  WD_TRY(apply_arguments(arguments));
  return Outcome::kRun;
}

std::vector<std::string> OptionSet::flags() const {
  std::vector<std::string> flags = {"--help"};
  for (const Option& option : options_) {
    flags.push_back(option.flag);
    if (option.is_switch) flags.push_back("--no-" + option.flag.substr(2));
  }
  return flags;
}

std::vector<std::string> OptionSet::arguments() const {
  std::vector<std::string> arguments;
  for (const Positional& positional : positionals_) {
    if (!positional.target->empty()) arguments.push_back(*positional.target);
  }
  if (rest_ != nullptr) arguments.insert(arguments.end(), rest_->begin(), rest_->end());
  for (const Option& option : options_) {
    const std::vector<std::string> values = option.get();
    if (values == option.default_values || option.flag == kConfigFlag) continue;
    for (const std::string& value : values)
      arguments.push_back(option.flag + "=" + value);
  }
  return arguments;
}

std::string OptionSet::help(std::string_view search) const {
  std::string out = fmt::format("wideep {}", command_);
  for (const Positional& positional : positionals_) {
    out += positional.required ? " " + positional.name : " [" + positional.name + "]";
  }
  if (rest_ != nullptr) out += fmt::format(" [{}...]", rest_name_);
  out += " [OPTIONS]\n\n" + wrap(summary_, 0) + "\n";
  for (const Positional& positional : positionals_) {
    out += fmt::format("\n  {:<28} {}", positional.name, wrap(positional.help, 31));
  }
  if (!positionals_.empty()) out += "\n";
  std::vector<std::string> groups;
  for (const Option& option : options_) {
    if (std::ranges::find(groups, option.text.group) == groups.end())
      groups.push_back(option.text.group);
  }
  bool is_found = false;
  for (const std::string& group : groups) {
    std::string lines;
    for (const Option& option : options_) {
      const bool matches = search.empty() || contains_ignoring_case(option.flag, search) ||
                           contains_ignoring_case(option.text.help, search) ||
                           contains_ignoring_case(group, search);
      if (option.text.group != group || !matches) continue;
      std::string left = option.flag;
      if (!option.text.alias.empty()) left = option.text.alias + ", " + left;
      if (!option.is_switch) left += " " + option.text.value_name;
      std::string right = option.text.help;
      if (!option.text.choices.empty())
        right += fmt::format(" One of {}.", fmt::join(option.text.choices, ", "));
      if (!option.default_text.empty()) right += fmt::format(" [default: {}]", option.default_text);
      right += fmt::format(" (env: {})", variable_name(option.flag));
      const std::string gap =
          left.size() < 28 ? std::string(29 - left.size(), ' ') : "\n" + std::string(31, ' ');
      lines += fmt::format("  {}{}{}\n", left, gap, wrap(right, 31));
    }
    if (!lines.empty()) out += fmt::format("\n{}:\n{}", group, lines);
    is_found = is_found || !lines.empty();
  }
  if (!is_found) out += fmt::format("\nNo option has '{}' in its name or text.\n", search);
  return out;
}

}  // namespace wideep
