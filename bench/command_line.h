// The command line of a benchmark: an OptionSet (base/options.h), so that what is mistyped is
// refused and --help tells the rest, with the flags that most of them have.
#pragma once

#include "base/options.h"
#include "math/formats.h"
#include "math/isa.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::bench {

// How the cases of a benchmark run.
struct RunOptions {
  math::Isa isa = math::detect_isa();
  int32_t threads = 2;
  int32_t rounds = 9;
  std::vector<std::string> only;  // parts of names; none: all cases

  bool wants(std::string_view name) const;
};

class CommandLine : public OptionSet {
 public:
  using OptionSet::OptionSet;

  // Targets hold the defaults and must outlive parse().
  void add_run(RunOptions* run);
  void add_threads(int32_t* threads);
  void add_rounds(int32_t* rounds);
  // --quantization; none: as the checkpoint stores them.
  void add_quantization(std::optional<math::WeightFormat>* format);

  // Nothing: go on. Else what main() returns: 0 after --help, 2 after an error; both are printed.
  std::optional<int> parse(int argc, char** argv);

 private:
  math::Isa* isa_ = nullptr;
  std::string isa_name_;
  std::optional<math::WeightFormat>* format_ = nullptr;
  std::string format_name_;
};

}  // namespace wideep::bench
