#include "model/golden.h"

#include "base/check.h"
#include "ep/local_all_to_all.h"
#include "model/golden_run.h"
#include "model/golden_set.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

namespace wideep::model {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();
constexpr int64_t kLastRows = 8;

// Rows of one intermediate value, gathered over forwards.
struct Rows {
  int64_t width = 0;
  std::vector<float> values;

  int64_t count() const { return width == 0 ? 0 : static_cast<int64_t>(values.size()) / width; }

  std::span<const float> row(int64_t r) const {
    return std::span(values).subspan(static_cast<size_t>(r * width), static_cast<size_t>(width));
  }
};

// One prompt on its way through a model: prompt and greedy tokens but the last, fed as the mode
// says.
struct Track {
  size_t prompt = 0;
  std::vector<TokenId> tokens;
  GoldenSequence sequence;
  int64_t first_position = 0;  // of the rows gathered here
  std::map<std::string, Rows> rows;
};

double root_mean_square(std::span<const float> values) {
  double sum = 0;
  for (const float value : values)
    sum += double{value} * double{value};
  return std::sqrt(sum / static_cast<double>(std::max<size_t>(1, values.size())));
}

int64_t argmax(std::span<const float> values) {
  return std::ranges::max_element(values) - values.begin();
}

double log_prob(std::span<const float> logits, int64_t token) {
  const double max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(double{logit} - max);
  return double{logits[static_cast<size_t>(token)]} - max - std::log(sum);
}

// A NaN stays: it is never within a limit.
void raise(double& max, double value) {
  if (!(value <= max)) max = value;
}

// Gathers what a forward computes into the tracks that are in it.
class Gatherer : public ForwardObserver {
 public:
  struct Part {
    Track* track;
    int64_t first_row;
    int64_t count;
  };

  explicit Gatherer(std::string draft_moe) : draft_moe_(std::move(draft_moe)) {}

  void set_parts(std::vector<Part> parts) { parts_ = std::move(parts); }

  void observe(const std::string& name, MatrixView<const float> rows) override {
    const std::string known =
        name.starts_with(draft_moe_) ? "mtp." + name.substr(draft_moe_.size()) : name;
    for (const Part& part : parts_) {
      Rows& out = part.track->rows[known];
      out.width = rows.cols;
      for (int64_t r = part.first_row; r < part.first_row + part.count; ++r) {
        const std::span<const float> row = rows.row(r);
        out.values.insert(out.values.end(), row.begin(), row.end());
      }
    }
  }

 private:
  std::string draft_moe_;  // "moe.3.": the draft layer's values are called "mtp."
  std::vector<Part> parts_;
};

class GoldenCheck {
 public:
  GoldenCheck(std::vector<GoldenPrompt> prompts,
              Model& model,
              ep::AllToAll& all_to_all,
              int64_t block_tokens,
              const GoldenOptions& options)
      : prompts_(std::move(prompts)),
        model_(model),
        runner_(model, all_to_all, block_tokens),
        gatherer_(fmt::format("moe.{}.", model.config().num_layers)),
        block_tokens_(block_tokens),
        rows_max_(all_to_all.tokens_max()),
        options_(options) {
    model_.set_observer(&gatherer_);
  }

  ~GoldenCheck() { model_.set_observer(nullptr); }

  GoldenCheck(const GoldenCheck&) = delete;
  GoldenCheck& operator=(const GoldenCheck&) = delete;

  Result<GoldenReport> run() {
    WD_TRY(one_shot());
    WD_TRY(chunked());
    WD_TRY(batched());
    WD_TRY(shared_prefix());
    if (has_draft()) WD_TRY(drafted());
    return std::move(report_);
  }

 private:
  Track start(size_t prompt) const;
  using Then = GoldenRunner::Then;
  Status feed(std::span<Track* const> tracks, int64_t count, Then then = Then::kForward);
  Status feed_prompt(Track& track);
  Status decode(std::span<Track* const> tracks);

  Status one_shot();
  Status chunked();
  Status batched();
  Status shared_prefix();
  Status drafted();
  bool has_draft() const;

  void compare(std::string_view mode, const Track& track);
  void compare_tensor(const std::string& label,
                      const GoldenTensor& expected,
                      const Rows& rows,
                      int64_t first_expected,
                      int64_t first_row);
  void compare_median(const std::string& label,
                      const GoldenTensor& expected,
                      const Rows& rows,
                      int64_t first_expected,
                      int64_t first_row);
  void compare_greedy(const std::string& label, const Track& track);

  bool is_exact() const { return model_.numeric().precision == math::Precision::kF32; }

  std::vector<GoldenPrompt> prompts_;
  Model& model_;
  GoldenRunner runner_;
  Gatherer gatherer_;
  int64_t block_tokens_;
  int64_t rows_max_;
  GoldenOptions options_;
  GoldenReport report_;
};

Track GoldenCheck::start(size_t prompt) const {
  const GoldenPrompt& golden = prompts_[prompt];
  Track track{.prompt = prompt, .tokens = golden.input};
  track.tokens.insert(track.tokens.end(), golden.greedy.begin(), golden.greedy.end() - 1);
  track.sequence.num_prompt = static_cast<int64_t>(golden.input.size());
  return track;
}

// The next `count` tokens (or what is left) of every track in one forward.
Status GoldenCheck::feed(std::span<Track* const> tracks, int64_t count, Then then) {
  std::vector<GoldenRunner::Feed> feeds;
  std::vector<Gatherer::Part> parts;
  int64_t row = 0;
  for (Track* track : tracks) {
    const auto begin = static_cast<size_t>(track->sequence.length);
    const size_t take = std::min(static_cast<size_t>(count), track->tokens.size() - begin);
    if (take == 0) continue;
    feeds.push_back({&track->sequence, std::span(track->tokens).subspan(begin, take)});
    parts.push_back({track, row, static_cast<int64_t>(take)});
    row += static_cast<int64_t>(take);
  }
  if (feeds.empty()) return {};
  gatherer_.set_parts(std::move(parts));
  WD_ASSIGN_OR_RETURN(const MatrixView<const float> logits, runner_.forward(feeds, then));
  gatherer_.observe("logits", logits);
  return {};
}

Status GoldenCheck::feed_prompt(Track& track) {
  Track* const one = &track;
  const auto length = static_cast<int64_t>(prompts_[track.prompt].input.size());
  while (track.sequence.length < length)
    WD_TRY(feed(std::span(&one, 1), std::min(rows_max_, length - track.sequence.length)));
  return {};
}

// The rest, one token of every track at a time.
Status GoldenCheck::decode(std::span<Track* const> tracks) {
  const auto unfinished = [](const Track* track) {
    return track->sequence.length < static_cast<int64_t>(track->tokens.size());
  };
  while (std::ranges::any_of(tracks, unfinished))
    WD_TRY(feed(tracks, 1));
  return {};
}

Status GoldenCheck::one_shot() {
  for (size_t p = 0; p < prompts_.size(); ++p) {
    Track track = start(p);
    Track* const one = &track;
    WD_TRY(feed_prompt(track));
    WD_TRY(decode(std::span(&one, 1)));
    compare("one-shot", track);
  }
  return {};
}

Status GoldenCheck::chunked() {
  for (size_t p = 0; p < prompts_.size(); ++p) {
    Track track = start(p);
    Track* const one = &track;
    while (track.sequence.length < static_cast<int64_t>(track.tokens.size()))
      WD_TRY(feed(std::span(&one, 1), options_.chunk));
    compare("chunked", track);
  }
  return {};
}

// All prompts side by side: each forward holds a part of every prompt, then a token of every one.
Status GoldenCheck::batched() {
  std::vector<Track> tracks;
  std::vector<Track*> pointers;
  for (size_t p = 0; p < prompts_.size(); ++p)
    tracks.push_back(start(p));
  for (Track& track : tracks)
    pointers.push_back(&track);
  const int64_t share = std::max<int64_t>(1, rows_max_ / static_cast<int64_t>(tracks.size()));
  WD_TRY(feed(pointers, share));
  WD_TRY(decode(pointers));
  for (const Track& track : tracks)
    compare("batched", track);
  return {};
}

// A second sequence starts on the full blocks of the first one's prompt.
Status GoldenCheck::shared_prefix() {
  for (size_t p = 0; p < prompts_.size(); ++p) {
    const auto length = static_cast<int64_t>(prompts_[p].input.size());
    const int64_t num_shared = (length - 1) / block_tokens_;
    if (num_shared == 0) continue;
    Track first = start(p);
    WD_TRY(feed_prompt(first));
    Track second = start(p);
    second.first_position = num_shared * block_tokens_;
    second.sequence.length = second.first_position;
    second.sequence.blocks.assign(first.sequence.blocks.begin(),
                                  first.sequence.blocks.begin() + num_shared);
    Track* const one = &second;
    WD_TRY(feed_prompt(second));
    WD_TRY(decode(std::span(&one, 1)));
    compare("shared-prefix", second);
  }
  return {};
}

bool GoldenCheck::has_draft() const {
  const bool wanted = std::ranges::any_of(
      prompts_, [](const GoldenPrompt& p) { return p.tensors.contains("mtp.draft_ids"); });
  const bool loaded =
      model_.kv_layout(block_tokens_).groups.front().num_layers > model_.config().num_layers;
  return wanted && loaded;
}

// The draft layer behind every forward: each row paired with the token that follows it.
Status GoldenCheck::drafted() {
  for (size_t p = 0; p < prompts_.size(); ++p) {
    const GoldenPrompt& golden = prompts_[p];
    const auto expected = golden.tensors.find("mtp.draft_ids");
    if (expected == golden.tensors.end()) continue;
    Track track = start(p);
    Track* const one = &track;
    std::vector<TokenId> next(track.tokens.begin() + 1, track.tokens.end());
    next.push_back(golden.greedy.back());
    while (track.sequence.length < static_cast<int64_t>(track.tokens.size())) {
      const auto begin = static_cast<size_t>(track.sequence.length);
      WD_TRY(feed(std::span(&one, 1), options_.chunk, Then::kDraft));
      const size_t count = static_cast<size_t>(track.sequence.length) - begin;
      WD_ASSIGN_OR_RETURN(const MatrixView<const float> logits,
                          runner_.draft(std::span(next).subspan(begin, count)));
      gatherer_.observe("mtp.logits", logits);
    }
    const Rows& logits = track.rows["mtp.logits"];
    Rows& drafts = track.rows["mtp.draft_ids"];
    drafts.width = 1;
    for (int64_t r = 0; r < logits.count(); ++r)
      drafts.values.push_back(static_cast<float>(argmax(logits.row(r))));
    compare("drafted", track);
  }
  return {};
}

// Every expected tensor that was gathered; "x_last8" is the last rows of the prompt's "x".
void GoldenCheck::compare(std::string_view mode, const Track& track) {
  const GoldenPrompt& golden = prompts_[track.prompt];
  const auto length = static_cast<int64_t>(golden.input.size());
  for (const auto& [name, expected] : golden.tensors) {
    const std::string label = fmt::format("{} prompt{}.{}", mode, track.prompt, name);
    const bool is_last = name.ends_with("_last8");
    const std::string gathered = is_last ? name.substr(0, name.size() - 6) : name;
    const auto rows = track.rows.find(gathered);
    if (rows == track.rows.end()) continue;
    const int64_t first = is_last ? length - kLastRows : 0;  // position of the first expected row
    const int64_t skip = std::max<int64_t>(0, track.first_position - first);
    if (skip >= expected.rows()) continue;
    const int64_t first_row = first + skip - track.first_position;
    if (gathered.ends_with("logits") && !gathered.ends_with("router_logits") && !is_exact()) {
      compare_median(label, expected, rows->second, skip, first_row);
    } else {
      compare_tensor(label, expected, rows->second, skip, first_row);
    }
  }
  compare_greedy(fmt::format("{} prompt{}.greedy", mode, track.prompt), track);
}

void GoldenCheck::compare_tensor(const std::string& label,
                                 const GoldenTensor& expected,
                                 const Rows& rows,
                                 int64_t first_expected,
                                 int64_t first_row) {
  GoldenItem item{.name = label, .limit = is_exact() ? options_.tolerance : kNoLimit};
  const int64_t width = expected.row_values();
  const int64_t count = expected.rows() - first_expected;
  if (rows.width != width || rows.count() < first_row + count) {
    item.difference = kNoLimit;
    item.limit = 0;
    report_.items.push_back(item);
    return;
  }
  const std::span<const float> want =
      std::span(expected.values).subspan(static_cast<size_t>(first_expected * width));
  const std::span<const float> got =
      std::span(rows.values).subspan(static_cast<size_t>(first_row * width), want.size());
  double largest = 0;
  double difference = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    raise(largest, std::abs(double{want[i]}));
    raise(difference, std::abs(double{want[i]} - double{got[i]}));
    if (expected.is_ids && want[i] != got[i] && is_exact()) ++item.num_mismatches;
  }
  item.num_values = static_cast<int64_t>(want.size());
  if (!expected.is_ids) item.difference = largest > 0 ? difference / largest : difference;
  report_.items.push_back(item);
}

void GoldenCheck::compare_median(const std::string& label,
                                 const GoldenTensor& expected,
                                 const Rows& rows,
                                 int64_t first_expected,
                                 int64_t first_row) {
  const int64_t width = expected.row_values();
  WD_CHECK(rows.width == width);
  const int64_t count = (expected.rows() - first_expected) * width;
  std::vector<double> differences;
  const double scale = root_mean_square(
      std::span(expected.values)
          .subspan(static_cast<size_t>(first_expected * width), static_cast<size_t>(count)));
  for (int64_t i = 0; i < count; ++i) {
    const double want = expected.values[static_cast<size_t>(first_expected * width + i)];
    const double got = rows.values[static_cast<size_t>(first_row * width + i)];
    differences.push_back(std::isfinite(got) ? std::abs(want - got) : kNoLimit);
  }
  const auto middle = differences.begin() + static_cast<std::ptrdiff_t>(differences.size() / 2);
  std::ranges::nth_element(differences, middle);
  report_.items.push_back({.name = label,
                           .difference = *middle / scale,
                           .limit = options_.median_max,
                           .num_values = count});
}

// The row before each greedy token must find it most likely, with the expected log-probability.
void GoldenCheck::compare_greedy(const std::string& label, const Track& track) {
  const GoldenPrompt& golden = prompts_[track.prompt];
  const auto expected = golden.tensors.find("greedy_logprobs");
  const auto rows = track.rows.find("logits");
  if (expected == golden.tensors.end() || rows == track.rows.end()) return;
  GoldenItem item{.name = label, .limit = is_exact() ? options_.tolerance : kNoLimit};
  const auto length = static_cast<int64_t>(golden.input.size());
  for (size_t i = 0; i < golden.greedy.size(); ++i) {
    const int64_t row = length - 1 + static_cast<int64_t>(i) - track.first_position;
    const std::span<const float> logits = rows->second.row(row);
    const int64_t token = index(golden.greedy[i]);
    const int64_t best = argmax(logits);
    const bool is_equal = best == token;
    const double ahead =
        double{logits[static_cast<size_t>(best)]} - double{logits[static_cast<size_t>(token)]};
    ++report_.num_argmax;
    report_.num_argmax_equal += is_equal ? 1 : 0;
    if (!is_equal && ahead <= options_.near_tie * root_mean_square(logits)) ++report_.num_near_ties;
    if (!is_equal && is_exact()) ++item.num_mismatches;
    raise(item.difference, std::abs(log_prob(logits, token) - expected->second.values[i]));
    ++item.num_values;
  }
  report_.items.push_back(item);
}

}  // namespace

bool GoldenReport::passed() const {
  return !items.empty() && std::ranges::all_of(items, &GoldenItem::passed);
}

std::string GoldenReport::describe() const {
  std::vector<GoldenItem> sorted = items;
  std::ranges::sort(sorted, [](const GoldenItem& a, const GoldenItem& b) {
    if (a.passed() != b.passed()) return b.passed();
    return a.difference > b.difference;
  });
  std::string text;
  for (const GoldenItem& item : sorted) {
    text +=
        fmt::format("{} {:<48} {:9.3g} (limit {:.3g}, {} values", item.passed() ? "ok  " : "FAIL",
                    item.name, item.difference, item.limit, item.num_values);
    if (item.num_mismatches > 0) text += fmt::format(", {} differ", item.num_mismatches);
    text += ")\n";
  }
  text += fmt::format(
      "{}: {} of {} tensors, most likely token as expected at {} of {} positions"
      " ({} near ties)\n",
      passed() ? "passed" : "FAILED", std::ranges::count_if(items, &GoldenItem::passed),
      items.size(), num_argmax_equal, num_argmax, num_near_ties);
  return text;
}

Result<GoldenReport> check_golden(const std::string& folder,
                                  Model& model,
                                  ep::AllToAll& all_to_all,
                                  int64_t block_tokens,
                                  const GoldenOptions& options) {
  WD_ASSIGN_OR_RETURN(std::vector<GoldenPrompt> prompts, load_golden_set(folder));
  auto report = GoldenCheck(std::move(prompts), model, all_to_all, block_tokens, options).run();
  if (report && model.numeric().precision != math::Precision::kF32) {
    const double rate = static_cast<double>(report->num_argmax_equal + report->num_near_ties) /
                        static_cast<double>(std::max<int64_t>(1, report->num_argmax));
    report->items.push_back({.name = "share of unexpected argmaxes",
                             .difference = 1 - rate,
                             .limit = 1 - options.argmax_rate_min,
                             .num_values = report->num_argmax});
  }
  return report;
}

Result<GoldenReport> check_golden(const std::string& folder,
                                  ThreadPool& pool,
                                  const LoadOptions& load,
                                  const GoldenOptions& options) {
  WD_ASSIGN_OR_RETURN(const auto model, load_model(folder, pool, load));
  ep::LocalAllToAll all_to_all(pool, math::kernels(model->numeric().isa),
                               {.formats = model->numeric().row_formats(),
                                .hidden = model->config().hidden_size,
                                .num_experts = model->config().num_experts(),
                                .top_k = model->config().router.top_k,
                                .tokens_max = load.rows_max});
  return check_golden(folder, *model, all_to_all, load.block_tokens, options);
}

}  // namespace wideep::model
