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

class CommandLine : public OptionSet {
 public:
  using OptionSet::OptionSet;

  // Targets hold the defaults and must outlive parse().
  void add_isa(math::Isa* isa);
  void add_threads(int32_t* threads);
  void add_rounds(int32_t* rounds);
  void add_only(std::vector<std::string>* only);
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

// Whether the name of a case contains one of the texts of --only; none: all are wanted.
bool is_wanted(std::string_view name, const std::vector<std::string>& only);

}  // namespace wideep::bench
