#include "rounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace wideep::bench {
namespace {

double now(Timing timing) {
  timespec time{};
  clock_gettime(timing == Timing::kWall ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double sample(const Case& c, Timing timing, int threads) {
  const double begin = now(timing);
  double seconds = 0;
  int runs = 0;
  while (seconds < c.least_seconds || runs == 0) {
    c.run();
    ++runs;
    seconds = (now(timing) - begin) / (timing == Timing::kCpu ? threads : 1);
  }
  return c.work * runs / seconds / 1e9;
}

double best(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

std::string share_of(const Case& c, const Case& yardstick) {
  std::vector<double> ratios;
  for (size_t i = 0; i < c.rates.size(); ++i)
    ratios.push_back(c.rates[i] / yardstick.rates[i]);
  return fmt::format(R"(, "yardstick": "{}", "share_median": {:.3f}, "share_best": {:.3f})",
                     yardstick.name, median(ratios), best(c.rates) / best(yardstick.rates));
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run_rounds(std::vector<Case>& cases, int rounds, Timing timing, int threads) {
  for (const Case& c : cases)
    c.run();
  for (int round = 0; round < rounds; ++round) {
    for (Case& c : cases)
      c.rates.push_back(sample(c, timing, threads));
  }
}

std::string to_json(const std::vector<Case>& cases, const std::string& machine) {
  std::string out = fmt::format("{{\"machine\": \"{}\", \"cases\": [\n", machine);
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    out += fmt::format(
        R"(  {{"name": "{}", "unit": "{}", "median": {:.1f}, "best": {:.1f}, "rounds": {})", c.name,
        c.unit, median(c.rates), best(c.rates), c.rates.size());
    const auto yardstick = std::find_if(cases.begin(), cases.end(),
                                        [&](const Case& y) { return y.name == c.yardstick; });
    if (yardstick != cases.end()) out += share_of(c, *yardstick);
    out += i + 1 < cases.size() ? "},\n" : "}\n";
  }
  return out + "]}\n";
}

}  // namespace wideep::bench
