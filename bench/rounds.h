// Measuring on a machine that others use too: all cases run once per round, one after the other, so
// that a disturbance hits the yardstick and the measured alike; what counts is the ratio of a case
// to its yardstick within a round, and the median of that over the rounds.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace wideep::bench {

struct Case {
  std::string name;
  double work = 0;           // bytes or operations of one run
  std::string unit;          // "GB/s", "GFLOPS", "GOPS"
  std::string yardstick;     // name of the case this one is compared with, or empty
  double least_seconds = 0;  // one sample repeats `run` at least this long
  std::function<void()> run;
  // Samples: work per second in 1e9, one per round.
  std::vector<double> rates;
};

// What counts as time. On a machine that is never quiet the wall clock measures the others; CPU
// time divided by the threads does not, though it does not see threads that sleep while others
// work: with one thread the two are the same.
enum class Timing { kWall, kCpu };

double median(std::vector<double> values);  // 0 of none

// Runs every case once to warm up, then `rounds` rounds. `threads`: that share kCpu.
void run_rounds(std::vector<Case>& cases,
                int rounds,
                Timing timing = Timing::kWall,
                int threads = 1);

// One JSON object: rate (median, best), share of the yardstick (median of the rounds' ratios, best
// rate to best rate).
std::string to_json(const std::vector<Case>& cases, const std::string& machine);

}  // namespace wideep::bench
