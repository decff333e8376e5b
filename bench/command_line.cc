#include "command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace wideep::bench {
namespace {

using math::WeightFormat;

constexpr std::array kFormats = {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                                 WeightFormat::kInt8, WeightFormat::kInt4};

}  // namespace

bool RunOptions::wants(std::string_view name) const {
  const auto contains = [&](const std::string& text) {
    return name.find(text) != std::string_view::npos;
  };
  return only.empty() || std::ranges::any_of(only, contains);
}

void CommandLine::add_run(RunOptions* run) {
  isa_ = &run->isa;
  isa_name_ = math::name(run->isa);
  std::vector<std::string> names;
  for (const math::Isa level : math::supported_isas())
    names.emplace_back(math::name(level));
  add("--isa", &isa_name_,
      {.group = "Run", .help = "The level of the kernels.", .choices = std::move(names)});
  add_threads(&run->threads);
  add_rounds(&run->rounds);
  add("--only", &run->only,
      {.group = "Run",
       .help = "Leave out cases whose name does not contain this text, or one of several."});
}

void CommandLine::add_threads(int32_t* threads) {
  add("--threads", threads, {.group = "Run", .help = "Threads that compute."});
}

void CommandLine::add_rounds(int32_t* rounds) {
  add("--rounds", rounds, {.group = "Run", .help = "How often all cases take turns."});
}

void CommandLine::add_quantization(std::optional<WeightFormat>* format) {
  format_ = format;
  std::vector<std::string> names;
  for (const WeightFormat each : kFormats)
    names.emplace_back(math::name(each));
  add("--quantization", &format_name_,
      {.group = "Run",
       .help = "The format of the weights, by default as the checkpoint stores them.",
       .choices = std::move(names)});
}

std::optional<int> CommandLine::parse(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::string help;
  const auto outcome = OptionSet::parse(arguments, &help);
  if (!outcome) {
    fmt::print(stderr, "{}: {}\n", command(), outcome.error().message);
    return 2;
  }
  if (*outcome == Outcome::kHelpShown) {
    fmt::print("{}", help);
    return 0;
  }
  if (isa_ != nullptr) *isa_ = *math::parse_isa(isa_name_);
  for (const WeightFormat format : kFormats)
    if (format_ != nullptr && math::name(format) == format_name_) *format_ = format;
  return std::nullopt;
}

}  // namespace wideep::bench
