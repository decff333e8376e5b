// Promise 1 with real models: one request gives the same tokens, log-probabilities and text in
// every configuration and whatever happens to it on its way.
//
//   matrix_test                    a covering set of pairs
//   matrix_test --strength=3       of triples
//   matrix_test --row=17           one row of it
//
// What decides the bits (checkpoint, formats, ISA level, form of prompts) is the key of a row;
// everything else must not matter: the row is compared with a run of the same key alone, in one
// chunk, on one thread.
#include "base/file.h"
#include "base/json.h"
#include "covering.h"
#include "engine/test_engine.h"
#include "ep/local_all_to_all.h"
#include "model/golden_set.h"
#include "model/load_model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <charconv>
#include <map>

namespace wideep::matrix {
namespace {

using engine::Outcome;
using engine::Request;

int strength = 2;
int only_row = -1;

constexpr int64_t kNewTokens = 24;
constexpr int64_t kRowsMax = 256;

enum Dimension {
  kSet,
  kFormat,
  kIsa,
  kPromptForm,  // where there is MLA
  kSampling,
  kBlockSize,
  kBudget,
  kMates,
  kThreads,
  kPrefix,
  kPreemption,
  kResume,
  kSpeculation,  // where there is a draft layer
  kNumDimensions
};

constexpr std::array<std::string_view, 5> kSets = {
    "dsv3-tiny-bf16", "dsv3-tiny-fp8", "dsv2-tiny-bf16", "qwen3moe-tiny-bf16", "dsv3-tiny-mtp"};
constexpr std::array<std::string_view, 4> kFormats = {"stored", "f32", "int8", "int4"};
constexpr std::array<std::string_view, 2> kPromptForms = {"absorbed", "expanded"};
constexpr std::array<std::string_view, 3> kSamplings = {"greedy", "sampled", "penalised"};
constexpr std::array<int64_t, 4> kBlockSizes = {16, 48, 128, 512};
constexpr std::array<int64_t, 3> kBudgets = {7, 40, kRowsMax};
constexpr std::array<int64_t, 3> kMateCounts = {0, 5, 31};
constexpr std::array<int, 3> kThreadCounts = {1, 2, 3};

// Cold, off; after the same request; after the turn of the chat before; beside a twin that computes
// the same right now.
enum Prefix { kCold, kOff, kWarm, kTurn, kTwin, kNumPrefixes };

constexpr std::array<std::string_view, kNumPrefixes> kPrefixes = {"cold", "off", "warm", "turn",
                                                                  "twin"};
constexpr std::array<int64_t, 3> kCuts = {0, 5, 17};  // where a stream is cut and resumed

std::vector<int> sizes() {
  std::vector<int> sizes(kNumDimensions);
  sizes[kSet] = kSets.size();
  sizes[kFormat] = kFormats.size();
  sizes[kIsa] = static_cast<int>(math::supported_isas().size());
  sizes[kPromptForm] = kPromptForms.size();
  sizes[kSampling] = kSamplings.size();
  sizes[kBlockSize] = kBlockSizes.size();
  sizes[kBudget] = kBudgets.size();
  sizes[kMates] = kMateCounts.size();
  sizes[kThreads] = kThreadCounts.size();
  sizes[kPrefix] = kNumPrefixes;
  sizes[kPreemption] = 2;
  sizes[kResume] = kCuts.size();
  sizes[kSpeculation] = 2;
  return sizes;
}

std::string describe(const Row& row) {
  return fmt::format(
      "{} {} {} {} {}: blocks of {}, chunks of {}, {} mates, {} threads, prefix {}, {} preemption, "
      "resumed at {}, speculation {}",
      kSets[row[kSet]], kFormats[row[kFormat]], math::name(math::supported_isas()[row[kIsa]]),
      kPromptForms[row[kPromptForm]], kSamplings[row[kSampling]], kBlockSizes[row[kBlockSize]],
      kBudgets[row[kBudget]], kMateCounts[row[kMates]], kThreadCounts[row[kThreads]],
      kPrefixes[row[kPrefix]], row[kPreemption], kCuts[row[kResume]], row[kSpeculation]);
}

// The run that all others are compared with.
Row baseline_of(Row row) {
  row[kBlockSize] = 1;
  row[kBudget] = 2;
  for (const Dimension d : {kMates, kThreads, kPrefix, kPreemption, kResume, kSpeculation})
    row[d] = 0;
  return row;
}

std::string golden_folder(std::string_view set) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, set);
}

struct Running {
  Outcome outcome;
  SequenceId id{};
};

// One rank: model, exchange, engine, built as the row says.
class Rank {
 public:
  explicit Rank(const Row& row)
      : pool_({.num_threads = kThreadCounts[row[kThreads]], .spin = std::chrono::microseconds(0)}) {
    model::LoadOptions load{.isa = math::supported_isas()[row[kIsa]], .rows_max = kRowsMax};
    load.block_tokens = kBlockSizes[row[kBlockSize]];
    const bool has_mla = kSets[row[kSet]] != "qwen3moe-tiny-bf16";
    load.weights.expanded_prompts = has_mla && kPromptForms[row[kPromptForm]] == "expanded";
    load.weights.draft = kSets[row[kSet]] == "dsv3-tiny-mtp";
    const std::string_view format = kFormats[row[kFormat]];
    if (format == "f32") load.weights.precision = math::Precision::kF32;
    if (format == "int8")
      load.weights.expert_format = load.weights.linear_format = math::WeightFormat::kInt8;
    if (format == "int4") load.weights.expert_format = math::WeightFormat::kInt4;
    auto model = model::load_model(golden_folder(kSets[row[kSet]]), pool_, load);
    if (!model) {
      ADD_FAILURE() << model.error().message;
      return;
    }
    model_ = *std::move(model);
    exchange_.emplace(pool_, math::kernels(*load.isa),
                      ep::LocalAllToAllOptions{.formats = model_->numeric().row_formats(),
                                               .hidden = model_->config().hidden_size,
                                               .num_experts = model_->config().num_experts(),
                                               .top_k = model_->config().router.top_k,
                                               .tokens_max = kRowsMax});
    auto engine = engine::Engine::create(
        *model_, &engine::byte_tokenizer(), clock_,
        {.max_model_len = 1024,
         .max_num_seqs = std::min<int64_t>(kBudgets[row[kBudget]], 33),
         .max_num_batched_tokens = kBudgets[row[kBudget]],
         .block_size = load.block_tokens,
         .num_kv_blocks = 36 * (256 / load.block_tokens + 1),
         .enable_prefix_caching = row[kPrefix] != kOff,
         .num_speculative_tokens = load.weights.draft ? row[kSpeculation] : 0});
    if (engine)
      engine_ = *std::move(engine);
    else
      ADD_FAILURE() << engine.error().message;
  }

  bool is_ready() const { return engine_ != nullptr; }

  int64_t vocab_size() const { return model_->config().vocab_size; }

  engine::Engine& engine() { return *engine_; }

  Running& submit(Request request) {
    running_.push_back(std::make_unique<Running>());
    Running& running = *running_.back();
    const auto id = engine_->submit(
        std::move(request), [&](const engine::RequestEvent& event) { running.outcome.add(event); });
    EXPECT_TRUE(id) << id.error().message;
    if (id) running.id = *id;
    return running;
  }

  void step() {
    const Status status = engine_->step(*exchange_);
    ASSERT_TRUE(status) << status.error().message;
  }

  void run() {
    for (int64_t steps = 0; engine_->has_work() && !testing::Test::HasFatalFailure(); ++steps) {
      ASSERT_LT(steps, 100000) << "no end";
      step();
    }
  }

 private:
  ThreadPool pool_;
  TestClock clock_;
  std::unique_ptr<model::Model> model_;
  std::optional<ep::LocalAllToAll> exchange_;
  std::unique_ptr<engine::Engine> engine_;
  std::vector<std::unique_ptr<Running>> running_;
};

Request request_of(const Row& row, std::vector<TokenId> prompt) {
  Request request;
  request.prompt_tokens = std::move(prompt);
  request.stop.max_tokens = kNewTokens;
  request.stop.ignore_eos = true;
  request.sampling.logprobs = 3;
  request.sampling.seed = 1234;
  request.sampling.temperature = 0;
  if (row[kSampling] >= 1) {
    request.sampling.temperature = 0.9F;
    request.sampling.top_p = 0.97F;
  }
  if (row[kSampling] == 2) {
    request.sampling.repetition_penalty = 1.3F;
    request.sampling.presence_penalty = 0.5F;
    request.sampling.min_p = 0.01F;
  }
  return request;
}

// A chat: its first turn, and the request that is judged, which goes on behind the first answer.
struct Subject {
  Request turn;
  Request request;
  Outcome alone;
};

// Made once for each key, by its baseline.
const Subject& subject_of(const Row& row) {
  static std::map<Row, Subject> subjects;
  const Row key = baseline_of(row);
  const auto found = subjects.find(key);
  if (found != subjects.end()) return found->second;
  Subject& subject = subjects[key];
  Rank rank(key);
  if (!rank.is_ready()) return subject;
  subject.turn = request_of(key, engine::random_tokens(1, 70, rank.vocab_size()));
  subject.turn.stop.max_tokens = 40;
  const Running& answer = rank.submit(subject.turn);
  rank.run();
  std::vector<TokenId> prompt = subject.turn.prompt_tokens;
  prompt.insert(prompt.end(), answer.outcome.tokens.begin(), answer.outcome.tokens.end());
  const std::vector<TokenId> more = engine::random_tokens(2, 25, rank.vocab_size());
  prompt.insert(prompt.end(), more.begin(), more.end());
  subject.request = request_of(key, std::move(prompt));

  Rank fresh(key);  // nothing cached
  const Running& alone = fresh.submit(subject.request);
  fresh.run();
  subject.alone = alone.outcome;
  return subject;
}

// Preempts the latest running sequence, the subject: an urgent request takes its place.
void force_preemption(Rank& rank, const Running& subject) {
  while (subject.outcome.tokens.size() < 3 && rank.engine().has_work())
    rank.step();
  const int64_t num_fillers = rank.engine().options().max_num_seqs;
  for (int64_t i = 0; i < num_fillers; ++i) {
    Request urgent;
    urgent.prompt_tokens =
        engine::random_tokens(900 + static_cast<uint64_t>(i), 9, rank.vocab_size());
    urgent.priority = -1;
    urgent.stop.max_tokens = 2;
    rank.submit(std::move(urgent));
  }
}

Outcome outcome_of(const Row& row, const Subject& subject) {
  Rank rank(row);
  if (!rank.is_ready()) return {};
  if (row[kPrefix] == kWarm) rank.submit(subject.request);
  if (row[kPrefix] == kTurn) rank.submit(subject.turn);
  rank.run();
  for (int64_t i = 0; i < kMateCounts[row[kMates]]; ++i) {
    Request mate = request_of(
        row, engine::random_tokens(100 + static_cast<uint64_t>(i), 3 + 4 * i, rank.vocab_size()));
    mate.sampling.seed = i;
    rank.submit(std::move(mate));
  }
  if (row[kPrefix] == kTwin) rank.submit(subject.request);

  Request request = subject.request;
  const auto cut = kCuts[row[kResume]];
  const Outcome& alone = subject.alone;
  Outcome before;  // what the client had before the stream was cut
  before.tokens.assign(alone.tokens.begin(), alone.tokens.begin() + cut);
  before.logprobs.assign(alone.logprobs.begin(), alone.logprobs.begin() + cut);
  before.alternatives.assign(alone.alternatives.begin(), alone.alternatives.begin() + 3 * cut);
  for (int64_t i = 0; i < cut; ++i)
    before.text += alone.texts[static_cast<size_t>(i)];
  request.generated_prefix = before.tokens;
  const Running& running = rank.submit(std::move(request));
  if (row[kPreemption] == 1) force_preemption(rank, running);
  rank.run();
  if (row[kPreemption] == 1) {
    EXPECT_GT(rank.engine().stats().num_preemptions, 0);
  }
  EXPECT_EQ(rank.engine().stats().num_kv_blocks_free, rank.engine().stats().num_kv_blocks);
  const bool must_hit =
      (row[kPrefix] == kWarm || row[kPrefix] == kTurn) && kBlockSizes[row[kBlockSize]] <= 48;
  if (must_hit) {
    EXPECT_GE(running.outcome.last.usage.cached_tokens, 48);
  }

  Outcome whole = running.outcome;
  whole.tokens.insert(whole.tokens.begin(), before.tokens.begin(), before.tokens.end());
  whole.logprobs.insert(whole.logprobs.begin(), before.logprobs.begin(), before.logprobs.end());
  whole.alternatives.insert(whole.alternatives.begin(), before.alternatives.begin(),
                            before.alternatives.end());
  whole.text = before.text + whole.text;
  return whole;
}

TEST(SameTokens, InEveryConfiguration) {
  const std::vector<Row> rows = covering_rows(sizes(), strength);
  ASSERT_LT(only_row, static_cast<int>(rows.size())) << "there is no such row";
  for (size_t i = 0; i < rows.size(); ++i) {
    if (only_row >= 0 && static_cast<int>(i) != only_row) continue;
    const std::string what =
        fmt::format("--strength={} --row={}: {}", strength, i, describe(rows[i]));
    SCOPED_TRACE(what);
    const Subject& subject = subject_of(rows[i]);
    ASSERT_EQ(subject.alone.tokens.size(), static_cast<size_t>(kNewTokens));
    EXPECT_EQ(outcome_of(rows[i], subject), subject.alone) << what;
  }
}

Request greedy_request(std::vector<TokenId> prompt, size_t num_tokens) {
  Request request;
  request.prompt_tokens = std::move(prompt);
  request.sampling.temperature = 0;
  request.sampling.logprobs = 0;
  request.stop.max_tokens = static_cast<int64_t>(num_tokens);
  request.stop.ignore_eos = true;
  return request;
}

TEST(GoldenTokens, ComeOutOfTheEngineInAllPromptsAtOnce) {
  for (size_t set = 0; set < kSets.size(); ++set) {
    SCOPED_TRACE(kSets[set]);
    Row row = baseline_of(Row(kNumDimensions, 0));
    row[kSet] = static_cast<int>(set);
    row[kFormat] = 1;  // f32
    row[kBudget] = 1;  // in chunks
    row[kIsa] = static_cast<int>(math::supported_isas().size()) - 1;
    Rank rank(row);
    const auto prompts = model::load_golden_set(golden_folder(kSets[set]));
    ASSERT_TRUE(prompts) << prompts.error().message;
    std::vector<const Running*> running;
    for (const model::GoldenPrompt& prompt : *prompts)
      running.push_back(&rank.submit(greedy_request(prompt.input, prompt.greedy.size())));
    rank.run();
    for (size_t i = 0; i < prompts->size(); ++i) {
      const model::GoldenPrompt& prompt = (*prompts)[i];
      EXPECT_EQ(running[i]->outcome.tokens, prompt.greedy) << "prompt " << i;
      const std::vector<float>& logprobs = prompt.tensors.at("greedy_logprobs").values;
      for (size_t t = 0; t < logprobs.size(); ++t)
        EXPECT_NEAR(running[i]->outcome.logprobs[t], logprobs[t], 1e-4) << "token " << t;
    }
  }
}

// golden.json says how many guesses a loop of one draft and one check gets right.
TEST(GoldenTokens, AreGuessedAsOftenAsTheGoldenSetSays) {
  const std::string folder = golden_folder("dsv3-tiny-mtp");
  const auto text = read_file(folder + "/expected/golden.json", 1 << 20);
  ASSERT_TRUE(text);
  const Json golden = *parse_json(*text);
  const auto prompts = *model::load_golden_set(folder);
  int num_checked = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Json* mtp = (*golden.find("prompts")->as_array())[i].find("mtp");
    if (mtp == nullptr) continue;
    Row row = baseline_of(Row(kNumDimensions, 0));
    row[kSet] = 4;
    row[kFormat] = 1;
    row[kIsa] = static_cast<int>(math::supported_isas().size()) - 1;
    row[kSpeculation] = 1;
    Rank rank(row);
    const Running& running =
        rank.submit(greedy_request(prompts[i].input, prompts[i].greedy.size()));
    rank.run();
    EXPECT_EQ(running.outcome.tokens, prompts[i].greedy);
    EXPECT_EQ(rank.engine().stats().num_accepted_tokens,
              mtp->find("one_draft_loop")->find("accepted")->as_int());
    ++num_checked;
  }
  EXPECT_EQ(num_checked, 2);
}

// The matrix must be able to fail: other numbers are other tokens or log-probabilities.
TEST(SameTokens, AreNotThoseOfOtherNumbers) {
  Row row = baseline_of(Row(kNumDimensions, 0));
  const Outcome stored = subject_of(row).alone;
  row[kFormat] = 1;
  EXPECT_NE(stored.logprobs, subject_of(row).alone.logprobs);
}

void parse_flag(std::string_view argument, std::string_view flag, int& value) {
  if (!argument.starts_with(flag)) return;
  argument.remove_prefix(flag.size());
  std::from_chars(argument.data(), argument.data() + argument.size(), value);
}

}  // namespace
}  // namespace wideep::matrix

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    wideep::matrix::parse_flag(argv[i], "--strength=", wideep::matrix::strength);
    wideep::matrix::parse_flag(argv[i], "--row=", wideep::matrix::only_row);
  }
  return RUN_ALL_TESTS();
}
