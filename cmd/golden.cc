// `wideep golden`: checks this build, this machine and these flags against folders of expected
// values.
#include "model/golden.h"

#include "cmd/engine_host.h"
#include "cmd/verb.h"

#include <fmt/format.h>

namespace wideep::cmd {
namespace {

class Golden final : public Verb {
 public:
  Golden()
      : Verb("golden",
             "Compare a model's numbers with expected ones: how to prove a build, a machine or a "
             "cluster right.") {
    host_.declare_numbers(options);
    options.add_rest("DIR", &folders_,
                     "Each DIR is a checkpoint with expected/golden.safetensors.");
    options.add(
        "--tolerance", &golden_.tolerance,
        {.group = "Check",
         .help = "Largest difference in the f32 path, as a share of a tensor's largest value."});
    options.add("--chunk", &golden_.chunk,
                {.group = "Check", .help = "Tokens per step in the chunked runs."});
    options.add("--verbose", &verbose_,
                {.group = "Check", .help = "Print every tensor, not only the worst."});
    host_.dtype = "float32";
  }

  int run() override {
    if (folders_.empty()) return fail({ErrorCode::kInvalidArgument, "no DIR given"}, kExitUsage);
    bool all_passed = true;
    for (const std::string& folder : folders_) {
      const auto passed = check(folder);
      if (!passed) return fail(passed.error(), kExitBadModel);
      all_passed = all_passed && *passed;
    }
    return all_passed ? kExitOk : kExitFailed;
  }

 private:
  Result<bool> check(const std::string& folder) {
    WD_ASSIGN_OR_RETURN(const model::LoadOptions load, load_options(host_));
    ThreadPool pool({.num_threads = static_cast<int>(std::max<int64_t>(1, host_.num_threads))});
    WD_ASSIGN_OR_RETURN(const model::GoldenReport report,
                        model::check_golden(folder, pool, load, golden_));
    fmt::print("{}: {}\n", folder, report.passed() ? "passed" : "FAILED");
    const std::string text = report.describe();
    fmt::print("{}\n", verbose_ || !report.passed() ? text : first_lines(text, 3));
    return report.passed();
  }

  static std::string first_lines(const std::string& text, int count) {
    size_t end = 0;
    for (int i = 0; i < count && end != std::string::npos; ++i)
      end = text.find('\n', end == 0 ? 0 : end + 1);
    return text.substr(0, end);
  }

  EngineHostOptions host_;
  model::GoldenOptions golden_;
  std::vector<std::string> folders_;
  bool verbose_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_golden() {
  return std::make_unique<Golden>();
}

}  // namespace wideep::cmd
