// A verb of the program: its options and what it does. One file each; wideep.cc has the list.
#pragma once

#include "base/options.h"
#include "base/result.h"

#include <memory>
#include <string>

namespace wideep::cmd {

// What the process exits with.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitBadModel = 3;  // a file of the model is not what it should be
// A rank of the group was lost or did not answer: all of them have to start again.
inline constexpr int kExitGroupEnded = 4;

class Verb {
 public:
  // `name` may have two words: "bench serve".
  Verb(std::string name, std::string summary) : options(std::move(name), std::move(summary)) {}

  virtual ~Verb() = default;
  // Runs with the options as parsed; the exit status.
  virtual int run() = 0;

  OptionSet options;
};

// Prints "wideep: <message>" on stderr and returns `status`.
int fail(const Error& error, int status = kExitFailed);
// Likewise, with kExitUsage if a flag or a file that it names is wrong.
int fail_to_start(const Error& error);

std::unique_ptr<Verb> make_serve();
std::unique_ptr<Verb> make_up();
std::unique_ptr<Verb> make_chat();
std::unique_ptr<Verb> make_bench_serve();
std::unique_ptr<Verb> make_bench_quality();
std::unique_ptr<Verb> make_bench_ep();
std::unique_ptr<Verb> make_gateway();
std::unique_ptr<Verb> make_epp();
std::unique_ptr<Verb> make_sidecar();
std::unique_ptr<Verb> make_golden();
std::unique_ptr<Verb> make_make_checkpoint();
std::unique_ptr<Verb> make_completion();

}  // namespace wideep::cmd
