#include "launcher/status_view.h"

#include "base/metrics_text.h"

#include <fmt/format.h>

#include <algorithm>

namespace wideep::launcher {
namespace {

std::string state_text(const GroupStatus& group) {
  std::string text{name(group.state)};
  if (group.num_restarts > 0)
    text += fmt::format(", {} restart{}", group.num_restarts, group.num_restarts > 1 ? "s" : "");
  if (group.state == GroupState::kBackingOff) text += fmt::format(" ({})", group.last_failure);
  return text;
}

}  // namespace

double StatusView::Looks::per_second(double Look::* counter) const {
  const double seconds = std::chrono::duration<double>(now.time - before.time).count();
  const double difference = now.*counter - before.*counter;
  // A counter that went back is a rank that was started again.
  return seconds > 0 && difference > 0 && before.time != TimePoint{} ? difference / seconds : 0;
}

StatusView::Look StatusView::read(const MemberReport& report) {
  Look look{.time = report.metrics_time};
  for_each_sample(report.metrics, [&](const MetricSample& sample) {
    if (sample.name == "vllm:num_requests_running") look.running += sample.value;
    if (sample.name == "vllm:num_requests_waiting") look.waiting += sample.value;
    if (sample.name == "vllm:kv_cache_usage_perc") look.kv_usage = sample.value;
    if (sample.name == "vllm:prompt_tokens_total") look.prompt_tokens += sample.value;
    if (sample.name == "vllm:generation_tokens_total") look.generated_tokens += sample.value;
    if (sample.name == "wideep:expert_rows_total") look.expert_rows += sample.value;
  });
  return look;
}

void StatusView::update(const std::vector<MemberReport>& reports) {
  for (const RankPlan& rank : deployment_.ranks) {
    const MemberReport& report = reports[rank.member];
    Looks& looks = looks_[rank.name];
    if (report.metrics.empty() || report.metrics_time == looks.now.time) continue;
    looks.before = looks.now;
    looks.now = read(report);
  }
}

bool StatusView::is_of_ranks(const std::string& group) const {
  return std::ranges::any_of(deployment_.ranks, [&](const RankPlan& rank) {
    return deployment_.members[rank.member].group == group;
  });
}

double StatusView::sum(const std::string& group, double Look::* counter) const {
  double total = 0;
  for (const RankPlan& rank : deployment_.ranks) {
    const auto looks = looks_.find(rank.name);
    if (deployment_.members[rank.member].group == group && looks != looks_.end())
      total += looks->second.per_second(counter);
  }
  return total;
}

double StatusView::kv_usage_max(const std::string& group) const {
  double most = 0;
  for (const RankPlan& rank : deployment_.ranks) {
    const auto looks = looks_.find(rank.name);
    if (deployment_.members[rank.member].group == group && looks != looks_.end())
      most = std::max(most, looks->second.now.kv_usage);
  }
  return most;
}

std::optional<double> StatusView::balance(const std::string& group) const {
  double most = 0;
  int num_ranks = 0;
  for (const RankPlan& rank : deployment_.ranks) {
    const auto looks = looks_.find(rank.name);
    if (deployment_.members[rank.member].group != group || looks == looks_.end()) continue;
    most = std::max(most, looks->second.per_second(&Look::expert_rows));
    ++num_ranks;
  }
  if (num_ranks < 2 || most <= 0) return std::nullopt;
  return sum(group, &Look::expert_rows) / num_ranks / most;
}

std::string StatusView::group_text(const GroupStatus& group) const {
  std::string text = fmt::format("{} {}", group.name, state_text(group));
  if (!is_of_ranks(group.name)) return text;
  text += fmt::format(", {:.0f} prompt and {:.0f} generated tokens/s, KV {:.0f} %",
                      sum(group.name, &Look::prompt_tokens),
                      sum(group.name, &Look::generated_tokens), kv_usage_max(group.name) * 100);
  if (const auto even = balance(group.name)) text += fmt::format(", expert balance {:.2f}", *even);
  return text;
}

std::string StatusView::rank_line(const RankPlan& rank, bool healthy) const {
  const auto found = looks_.find(rank.name);
  const Looks looks = found == looks_.end() ? Looks{} : found->second;
  return fmt::format(
      "  {:<16} {:<5} {:>3.0f} running {:>3.0f} waiting {:>7.0f} prompt {:>6.0f} generated "
      "tokens/s  KV {:>3.0f} %",
      rank.name, healthy ? "up" : "down", looks.now.running, looks.now.waiting,
      looks.per_second(&Look::prompt_tokens), looks.per_second(&Look::generated_tokens),
      looks.now.kv_usage * 100);
}

std::vector<std::string> StatusView::lines(const std::vector<GroupStatus>& groups,
                                           const std::vector<MemberReport>& reports) {
  update(reports);
  std::vector<std::string> lines;
  std::string others;
  for (const GroupStatus& group : groups) {
    if (!is_of_ranks(group.name)) {
      others += (others.empty() ? "" : " | ") + group_text(group);
      continue;
    }
    lines.push_back(group_text(group));
    for (const RankPlan& rank : deployment_.ranks) {
      if (deployment_.members[rank.member].group == group.name)
        lines.push_back(rank_line(rank, reports[rank.member].healthy));
    }
  }
  lines.push_back(others);
  return lines;
}

std::string StatusView::summary(const std::vector<GroupStatus>& groups,
                                const std::vector<MemberReport>& reports) {
  update(reports);
  std::string text;
  for (const GroupStatus& group : groups)
    text += (text.empty() ? "" : " | ") + group_text(group);
  return text;
}

}  // namespace wideep::launcher
