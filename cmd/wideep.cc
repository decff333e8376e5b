// The program: a list of verbs.
#include "base/log.h"
#include "cmd/verb.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace wideep::cmd {
namespace {

using MakeVerb = std::unique_ptr<Verb> (*)();

constexpr std::array<MakeVerb, 12> kVerbs = {
    make_serve,           make_up,          make_chat,     make_gateway,       make_epp,
    make_sidecar,         make_bench_serve, make_bench_ep, make_bench_quality, make_golden,
    make_make_checkpoint, make_completion,
};

std::vector<std::unique_ptr<Verb>> all_verbs() {
  std::vector<std::unique_ptr<Verb>> verbs;
  for (const MakeVerb make : kVerbs)
    verbs.push_back(make());
  return verbs;
}

std::string usage() {
  std::string text =
      "wideep serves very large mixture-of-experts models on CPU machines.\n\n"
      "  wideep VERB [OPTIONS]\n\n";
  for (const auto& verb : all_verbs()) {
    text += fmt::format("  {:<18} {}\n", verb->options.command(), verb->options.summary());
  }
  return text +
         "\n`wideep VERB --help` lists a verb's options, `--help=WORD` those about WORD. Every "
         "option is also an\n"
         "environment variable (--max-model-len is WIDEEP_MAX_MODEL_LEN) and a key of the YAML "
         "file of --config.\n";
}

// The verb that the arguments begin with, and how many words its name has.
std::unique_ptr<Verb> find_verb(std::span<const std::string> arguments, size_t* num_words) {
  for (auto& verb : all_verbs()) {
    const std::string& name = verb->options.command();
    const bool two_words = name.find(' ') != std::string::npos;
    if (two_words && arguments.size() > 1 && arguments[0] + " " + arguments[1] == name) {
      *num_words = 2;
      return std::move(verb);
    }
    if (!two_words && arguments[0] == name) {
      *num_words = 1;
      return std::move(verb);
    }
  }
  return nullptr;
}

int unknown_verb(const std::string& word) {
  std::vector<std::string> names;
  std::vector<std::string> that_begin_so;
  for (const auto& verb : all_verbs()) {
    names.push_back(verb->options.command());
    if (names.back().starts_with(word + " ")) that_begin_so.push_back(names.back());
  }
  if (!that_begin_so.empty())
    return fail(
        invalid_argument("{} what? There are: {}", word, fmt::join(that_begin_so, ", ")).error(),
        kExitUsage);
  const auto nearest = nearest_word(word, names);
  fmt::print(stderr, "wideep: no verb '{}'{}\n\n{}", word,
             nearest ? fmt::format("; did you mean {}?", *nearest) : "", usage());
  return kExitUsage;
}

int run(std::span<const std::string> arguments) {
  if (arguments.size() > 1 && arguments[0] == "help") {  // help VERB: VERB --help
    std::vector<std::string> asked(arguments.begin() + 1, arguments.end());
    asked.emplace_back("--help");
    return run(asked);
  }
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" ||
      arguments[0] == "help") {
    fmt::print("{}", usage());
    return arguments.empty() ? kExitUsage : kExitOk;
  }
  if (arguments[0] == "--version" || arguments[0] == "version") {
    fmt::print("wideep {}\n", WIDEEP_VERSION);
    return kExitOk;
  }
  size_t num_words = 0;
  const std::unique_ptr<Verb> verb = find_verb(arguments, &num_words);
  if (verb == nullptr) return unknown_verb(arguments[0]);

  std::string log_level = "info";
  verb->options.add("--log-level", &log_level,
                    {.group = "General",
                     .help = "What to log on stderr.",
                     .choices = {"debug", "info", "warning", "error"}});
  std::string help;
  const auto outcome = verb->options.parse(arguments.subspan(num_words), &help);
  if (!outcome) return fail(outcome.error(), kExitUsage);
  if (*outcome == OptionSet::Outcome::kHelpShown) {
    fmt::print("{}", help);
    return kExitOk;
  }
  for (const auto& [name, level] :
       {std::pair{"debug", LogLevel::kDebug}, std::pair{"warning", LogLevel::kWarning},
        std::pair{"error", LogLevel::kError}}) {
    if (log_level == name) set_log_level(level);
  }
  return verb->run();
}

// `wideep completion bash`: prints a completion script. It needs the list of all verbs, so it lives
// here.
class Completion final : public Verb {
 public:
  Completion()
      : Verb("completion",
             "Print a completion script for a shell: source <(wideep completion bash)") {
    options.add_positional("SHELL", &shell_, "bash or zsh", true);
  }

  int run() override {
    if (shell_ != "bash" && shell_ != "zsh") {
      return fail(
          {ErrorCode::kInvalidArgument, fmt::format("no completion for '{}': bash or zsh", shell_)},
          kExitUsage);
    }
    if (shell_ == "zsh") fmt::print("autoload -U +X bashcompinit && bashcompinit\n");
    std::string names;
    std::string cases;
    for (const auto& verb : all_verbs()) {
      const std::string& name = verb->options.command();
      names += (names.empty() ? "" : " ") + name;
      cases += fmt::format("    '{}'*) words='{} --log-level' ;;\n", name,
                           fmt::join(verb->options.flags(), " "));
    }
    fmt::print(
        "_wideep() {{\n"
        "  local line=\"${{COMP_WORDS[*]:1}}\" current=\"${{COMP_WORDS[COMP_CWORD]}}\" words='{}'\n"
        "  case \"$line\" in\n{}  esac\n"
        "  if [[ $COMP_CWORD -gt 1 && $current != -* ]]; then COMPREPLY=($(compgen -f -- "
        "\"$current\")); return; fi\n"
        "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
        "}}\ncomplete -o filenames -F _wideep wideep\n",
        names, cases);
    return kExitOk;
  }

 private:
  std::string shell_;
};

}  // namespace

int fail(const Error& error, int status) {
  // Not fmt::print, which throws when nobody reads any more.
  std::fputs(fmt::format("wideep: {}\n", error.message).c_str(), stderr);
  return status;
}

int fail_to_start(const Error& error) {
  const bool is_callers =
      error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kNotFound;
  return fail(error, is_callers ? kExitUsage : kExitFailed);
}

std::unique_ptr<Verb> make_completion() {
  return std::make_unique<Completion>();
}

}  // namespace wideep::cmd

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  return wideep::cmd::run(arguments);
}
