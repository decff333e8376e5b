// What a person sees of a running deployment: a few lines of text, from what supervisor and ranks
// say. Knows no terminal and no clock.
#pragma once

#include "base/clock.h"
#include "launcher/deployment.h"
#include "launcher/health_watch.h"
#include "launcher/supervisor.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace wideep::launcher {

// Keeps the counters of the last two looks, to tell rates. Thread: one.
class StatusView {
 public:
  explicit StatusView(const Deployment& deployment) : deployment_(deployment) {}

  // A line per group of ranks and per rank, one for sidecars and gateway; without line ends.
  std::vector<std::string> lines(const std::vector<GroupStatus>& groups,
                                 const std::vector<MemberReport>& reports);

  // The same in one line, for logs: "decode ready, 31 tokens/s, KV 4 % | gateway ready".
  std::string summary(const std::vector<GroupStatus>& groups,
                      const std::vector<MemberReport>& reports);

 private:
  // What a rank's metrics say at one time.
  struct Look {
    TimePoint time{};
    double running = 0;
    double waiting = 0;
    double kv_usage = 0;  // 0 to 1
    double prompt_tokens = 0;
    double generated_tokens = 0;
    double expert_rows = 0;  // computed by the experts that live there
  };

  // The last two looks at a rank that differ in time.
  struct Looks {
    Look now;
    Look before;

    double per_second(double Look::* counter) const;
  };

  // Takes new metrics in.
  void update(const std::vector<MemberReport>& reports);
  static Look read(const MemberReport& report);
  // Mean ÷ max of the rows that the group's ranks computed between the looks: 1 is even. Nothing
  // for a single rank, or if there were none.
  std::optional<double> balance(const std::string& group) const;
  double sum(const std::string& group, double Look::* counter) const;
  double kv_usage_max(const std::string& group) const;
  std::string group_text(const GroupStatus& group) const;
  std::string rank_line(const RankPlan& rank, bool healthy) const;
  bool is_of_ranks(const std::string& group) const;

  const Deployment& deployment_;
  std::map<std::string, Looks> looks_;  // by rank
};

}  // namespace wideep::launcher
