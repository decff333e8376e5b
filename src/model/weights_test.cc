#include "model/weights.h"

#include "base/file.h"
#include "base/json.h"
#include "model/load_model.h"
#include "model/loaders.h"
#include "model/make_checkpoint.h"
#include "model/pack_task.h"
#include "model/safetensors_writer.h"
#include "model/weight_cache.h"
#include "model/weight_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <filesystem>
#include <fstream>

namespace wideep::model {
namespace {

using testing::HasSubstr;

std::string golden(std::string_view name) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, name);
}

class Weights : public testing::Test {
 protected:
  Weights() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fmt::format("{}wideep_{}_{}", testing::TempDir(), test->name(), getpid());
    std::filesystem::create_directories(folder_);
  }

  ~Weights() override { std::filesystem::remove_all(folder_); }

  Result<ModelWeights> load(const std::string& checkpoint_folder, const WeightOptions& options) {
    WD_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                        Checkpoint::open(checkpoint_folder, {.draft = options.draft}));
    return load_weights(checkpoint, options, pool_);
  }

  // The only file in the cache folder.
  std::string cache_file() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/cache"))
      return entry.path();
    return "";
  }

  ThreadPool pool_{{.num_threads = 2}};
  std::string folder_;
};

bool same_bytes(const AlignedBuffer& a, const AlignedBuffer& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

TEST_F(Weights, AreRefusedForEveryBrokenFolderWithinBoundedMemory) {
  const auto cases = parse_json(*read_file(golden("bad/cases.json"), 1 << 20));
  ASSERT_TRUE(cases);
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  for (const Json& item : *cases->as_array()) {
    const std::string& name = *item.find("folder")->as_string();
    SCOPED_TRACE(name);
    const auto weights = load(golden("bad/" + name), {});
    ASSERT_EQ(weights.has_value(), *item.find("ok")->as_bool())
        << (weights ? "accepted" : weights.error().message);
    if (weights) continue;
    EXPECT_THAT(weights.error().message, HasSubstr(*item.find("file")->as_string()));
    const std::string* tensor = item.find("tensor")->as_string();
    if (tensor != nullptr) EXPECT_THAT(weights.error().message, HasSubstr(*tensor));
  }
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT((after.ru_maxrss - before.ru_maxrss) * 1024, 64 << 20);
}

TEST_F(Weights, ComeFromTheCacheTheSecondTime) {
  const WeightOptions options{.cache_dir = folder_ + "/cache"};
  const auto first = load(golden("dsv3-tiny-fp8"), options);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_FALSE(first->from_cache);
  EXPECT_GT(first->checkpoint_bytes_read, 5'000'000);
  const auto second = load(golden("dsv3-tiny-fp8"), options);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_TRUE(second->from_cache);
  EXPECT_EQ(second->checkpoint_bytes_read, 0);
  EXPECT_TRUE(same_bytes(first->dense_arena, second->dense_arena));
  EXPECT_TRUE(same_bytes(first->expert_arena, second->expert_arena));
}

TEST_F(Weights, ArePackedAgainWhenTheCacheIsBroken) {
  const WeightOptions options{.cache_dir = folder_ + "/cache"};
  const auto first = load(golden("dsv3-tiny-mtp"), options);
  ASSERT_TRUE(first) << first.error().message;
  const std::string path = cache_file();
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
  for (const int64_t position : {int64_t{0}, int64_t{20}, int64_t{100}, size / 2, size - 3000}) {
    SCOPED_TRACE(position);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(position);
    const char old = static_cast<char>(file.get());
    file.seekp(position);
    file.put(static_cast<char>(old ^ 0x40));
    file.close();
    const auto again = load(golden("dsv3-tiny-mtp"), options);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_FALSE(again->from_cache);
    EXPECT_TRUE(same_bytes(first->dense_arena, again->dense_arena));
    EXPECT_TRUE(same_bytes(first->expert_arena, again->expert_arena));
  }
  std::filesystem::resize_file(path, static_cast<uintmax_t>(size) / 2);
  const auto cut = load(golden("dsv3-tiny-mtp"), options);
  ASSERT_TRUE(cut) << cut.error().message;
  EXPECT_FALSE(cut->from_cache);
  const auto healed = load(golden("dsv3-tiny-mtp"), options);
  ASSERT_TRUE(healed);
  EXPECT_TRUE(healed->from_cache);
}

TEST_F(Weights, HaveAnotherCacheForEveryFormatPlacementAndVersionOfTheFiles) {
  std::filesystem::copy(golden("dsv3-tiny-mtp"), folder_ + "/model");
  WeightOptions options{.cache_dir = folder_ + "/cache"};
  const auto is_cached = [&] { return load(folder_ + "/model", options)->from_cache; };
  EXPECT_FALSE(is_cached());
  EXPECT_TRUE(is_cached());
  options.precision = math::Precision::kF32;
  EXPECT_FALSE(is_cached());
  options.precision = math::Precision::kMixed;
  options.expert_format = math::WeightFormat::kInt8;
  EXPECT_FALSE(is_cached());
  options.expanded_prompts = true;
  EXPECT_FALSE(is_cached());
  options.slots = {{}, {ExpertId{1}}, {ExpertId{0}}};
  EXPECT_FALSE(is_cached());
  options.slots = {{}, {ExpertId{0}}, {ExpertId{1}}};
  EXPECT_FALSE(is_cached());
  EXPECT_TRUE(is_cached());
  const std::string shard = folder_ + "/model/model-00001-of-00002.safetensors";
  std::filesystem::permissions(shard, std::filesystem::perms::owner_all);
  std::filesystem::last_write_time(
      shard, std::filesystem::last_write_time(shard) + std::chrono::seconds(1));
  EXPECT_FALSE(is_cached());
}

// Three formats of one model, room for two: the one longest unused goes, unless it is in use.
TEST_F(Weights, KeepTheirCacheFolderBelowItsLimit) {
  WeightOptions options{.cache_dir = folder_ + "/cache"};
  const auto load_as = [&](math::WeightFormat format) {
    options.expert_format = format;
    return load(golden("dsv3-tiny-mtp"), options);
  };
  using math::WeightFormat;
  {
    const auto largest = load_as(WeightFormat::kBf16);
  }
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(cache_file()));
  options.cache_bytes_max = 2 * bytes;
  {
    const auto second = load_as(WeightFormat::kInt8);
  }
  EXPECT_TRUE(load_as(WeightFormat::kBf16)->from_cache);  // used later than int8 now
  {
    const auto third = load_as(WeightFormat::kFp8);
    EXPECT_TRUE(load_as(WeightFormat::kBf16)->from_cache);
    EXPECT_TRUE(load_as(WeightFormat::kFp8)->from_cache);
    const auto in_use = load_as(WeightFormat::kBf16);
    EXPECT_FALSE(load_as(WeightFormat::kInt8)->from_cache);
    EXPECT_FALSE(load_as(WeightFormat::kInt8)->from_cache);  // both others are in use: not kept
  }
  EXPECT_FALSE(load_as(WeightFormat::kInt8)->from_cache);
  EXPECT_TRUE(load_as(WeightFormat::kInt8)->from_cache);
}

// What a process that was killed left behind goes when the next file is written.
TEST_F(Weights, RemoveHalfWrittenCaches) {
  std::filesystem::create_directories(folder_ + "/cache");
  const std::string leftover = folder_ + "/cache/0123.wdcache.tmp1";
  ASSERT_TRUE(write_file(leftover, "half"));
  ASSERT_TRUE(load(golden("dsv3-tiny-mtp"), {.cache_dir = folder_ + "/cache"}));
  EXPECT_FALSE(std::filesystem::exists(leftover));
}

TEST_F(Weights, LoadEvenWhereNoCacheCanBeWritten) {
  const auto weights = load(golden("dsv3-tiny-mtp"), {.cache_dir = "/proc/no-such-folder"});
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_FALSE(weights->from_cache);
}

TEST_F(Weights, OfARankAreItsOwnExpertsOnlyWhereverTheyLie) {
  const auto all = load(golden("dsv3-tiny-bf16"), {});
  ASSERT_TRUE(all) << all.error().message;
  WeightOptions options;
  options.slots.resize(5);
  for (size_t layer = 1; layer < 5; ++layer)
    options.slots[layer] = {ExpertId{9}, ExpertId{2}, ExpertId{9}};
  const auto some = load(golden("dsv3-tiny-bf16"), options);
  ASSERT_TRUE(some) << some.error().message;
  EXPECT_EQ(all->expert_arena.size(), static_cast<size_t>(4 * 16 * all->expert_blob_bytes));
  EXPECT_EQ(some->expert_arena.size(), static_cast<size_t>(4 * 3 * all->expert_blob_bytes));
  const int64_t expert_bytes = 3 * 256 * 32 * 2;
  EXPECT_EQ(all->checkpoint_bytes_read - some->checkpoint_bytes_read, 4 * 13 * expert_bytes);
  for (size_t layer = 1; layer < 5; ++layer) {
    const auto& mine = some->layers[layer].moe.slots;
    const auto& theirs = all->layers[layer].moe.slots;
    EXPECT_TRUE(std::ranges::equal(mine[0].gate_up.bytes, theirs[9].gate_up.bytes));
    EXPECT_TRUE(std::ranges::equal(mine[1].down.bytes, theirs[2].down.bytes));
    EXPECT_TRUE(std::ranges::equal(mine[2].down.bytes, theirs[9].down.bytes));
  }
}

TEST_F(Weights, HaveWUkOfEveryHeadBothWaysIfPromptsAreExpanded) {
  const auto weights = load(golden("dsv3-tiny-fp8"), {.expanded_prompts = true});
  ASSERT_TRUE(weights) << weights.error().message;
  const MlaWeights& mla = weights->layers[1].mla;
  ASSERT_EQ(mla.w_uk.size(), 4U);
  for (size_t head = 0; head < mla.w_uk.size(); ++head) {
    const math::PackedMatrix& w = mla.w_uk[head];
    ASSERT_EQ(w.n, 32);
    ASSERT_EQ(w.k, 160);
    for (int64_t i = 0; i < w.n * w.k; ++i) {
      const int64_t d = i / w.k;
      const int64_t c = i % w.k;
      ASSERT_EQ(math::unpack_value(w, d, c), math::unpack_value(mla.w_uk_t[head], c, d));
    }
  }
  EXPECT_TRUE(load(golden("dsv3-tiny-fp8"), {})->layers[1].mla.w_uk.empty());
}

TEST_F(Weights, RefuseAPlacementThatDoesNotFit) {
  WeightOptions options;
  options.slots = {{}, {ExpertId{16}}, {}, {}, {}};
  EXPECT_THAT(load(golden("dsv3-tiny-bf16"), options).error().message, HasSubstr("expert 16"));
  options.slots = {{}, {}};
  EXPECT_THAT(load(golden("dsv3-tiny-bf16"), options).error().message, HasSubstr("2 layers"));
}

TEST_F(Weights, RefuseIntegersInTheF32Path) {
  const WeightOptions options{.precision = math::Precision::kF32,
                              .expert_format = math::WeightFormat::kInt8};
  EXPECT_THAT(load(golden("dsv3-tiny-bf16"), options).error().message, HasSubstr("f32 path"));
}

TEST_F(Weights, RefuseDraftingWithoutADraftLayer) {
  EXPECT_THAT(load(golden("dsv3-tiny-bf16"), {.draft = true}).error().message,
              HasSubstr("num_nextn_predict_layers"));
}

TEST_F(Weights, TellHowFarTheyAre) {
  std::vector<LoadProgress> seen;
  WeightOptions options;
  options.progress = [&](const LoadProgress& progress) -> Status {
    seen.push_back(progress);
    return {};
  };
  const auto weights = load(golden("dsv3-tiny-bf16"), options);
  ASSERT_TRUE(weights);
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().bytes_done, seen.back().bytes_total);
  EXPECT_EQ(seen.back().tensors_done, seen.back().tensors_total);
  EXPECT_EQ(seen.back().tensors_total, 263);
  EXPECT_TRUE(std::ranges::is_sorted(seen, {}, &LoadProgress::bytes_done));
}

TEST_F(Weights, StopLoadingWhenTheirProgressIsAnsweredWithAnError) {
  int num_calls = 0;
  WeightOptions options;
  options.progress = [&](const LoadProgress&) -> Status {
    return ++num_calls < 3 ? Status{} : error(ErrorCode::kPeerLost, "nobody waits for them");
  };
  const auto weights = load(golden("dsv3-tiny-bf16"), options);
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().code, ErrorCode::kPeerLost);
  EXPECT_LE(num_calls, 3 + num_loaders(pool_));
}

TEST_F(Weights, OfAnExpertAreABlobThatKnowsWhatItIs) {
  WeightOptions options;
  const Checkpoint checkpoint = *Checkpoint::open(golden("dsv3-tiny-mtp"), {});
  ModelWeights planned;
  const WeightPlan plan = *WeightPlan::make(checkpoint, options, planned);
  auto weights = load_weights(checkpoint, options, pool_);
  ASSERT_TRUE(weights);
  int64_t num_blobs = 0;
  for (const PackTask& task : plan.tasks()) {
    if (task.kind != PackTask::Kind::kExpert) continue;
    ++num_blobs;
    const std::span<std::byte> blob = bytes_at(*weights, task.place);
    const uint64_t layout = plan.shapes().expert_layout;
    EXPECT_TRUE(check_expert_blob(blob, task.layer, task.expert, layout));
    EXPECT_FALSE(check_expert_blob(blob, task.layer, task.expert + 1, layout));
    EXPECT_FALSE(check_expert_blob(blob, task.layer, task.expert, layout + 1));
    EXPECT_FALSE(check_expert_blob(blob.first(40), task.layer, task.expert, layout));
    blob[200] ^= std::byte{1};
    EXPECT_FALSE(check_expert_blob(blob, task.layer, task.expert, layout));
  }
  EXPECT_EQ(num_blobs, 2 * 8);
}

// The same tensors under other names: all experts of a layer in two.
void write_merged(const Checkpoint& checkpoint, const std::string& folder) {
  SafetensorsWriter writer(folder, 1 << 30);
  const ModelConfig& config = checkpoint.config();
  std::vector<TensorSpec> plain;
  std::vector<std::vector<TensorSpec>> merged;  // in the order of their rows
  ASSERT_TRUE(for_each_tensor(config, false, [&](const TensorSpec& spec) -> Status {
    if (spec.expert < 0) plain.push_back(spec);
    return {};
  }));
  for (const TensorSpec& spec : plain) {
    std::vector<int64_t> shape = {spec.rows};
    if (spec.cols > 0) shape.push_back(spec.cols);
    writer.declare(spec.name, Dtype::kBf16, shape);
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    std::vector<TensorSpec> gate_up;
    std::vector<TensorSpec> down;
    for (int64_t expert = 0; expert < config.num_experts(); ++expert) {
      ASSERT_TRUE(
          for_each_expert_tensor(config, layer, expert, [&](const TensorSpec& spec) -> Status {
            (spec.name.ends_with("down_proj.weight") ? down : gate_up).push_back(spec);
            return {};
          }));
    }
    const std::string prefix = layer_prefix(layer) + "mlp.experts.";
    const int64_t inner = config.moe_intermediate_size;
    writer.declare(prefix + "gate_up_proj", Dtype::kBf16,
                   {config.num_experts(), 2 * inner, config.hidden_size});
    writer.declare(prefix + "down_proj", Dtype::kBf16,
                   {config.num_experts(), config.hidden_size, inner});
    merged.push_back(gate_up);
    merged.push_back(down);
  }
  merged.insert(merged.begin(), plain);
  for (const std::vector<TensorSpec>& specs : merged) {
    for (const TensorSpec& spec : specs) {
      const TensorSource source = *checkpoint.locate(spec);
      std::vector<std::byte> bytes(static_cast<size_t>(source.rows * source.row_bytes()));
      ASSERT_TRUE(source.values.file->read(*source.values.entry, 0, bytes));
      ASSERT_TRUE(writer.write(bytes));
    }
  }
  ASSERT_TRUE(writer.finish());
}

TEST_F(Weights, AreTheSameFromMergedExperts) {
  const std::string from = golden("qwen3moe-tiny-bf16");
  write_merged(*Checkpoint::open(from, {}), folder_);
  std::filesystem::copy(from + "/config.json", folder_ + "/config.json");
  const auto split = load(from, {});
  const auto merged = load(folder_, {});
  ASSERT_TRUE(split) << split.error().message;
  ASSERT_TRUE(merged) << merged.error().message;
  EXPECT_TRUE(same_bytes(split->dense_arena, merged->dense_arena));
  EXPECT_TRUE(same_bytes(split->expert_arena, merged->expert_arena));
}

TEST_F(Weights, AreTheSameInSlicesAndInOnePiece) {
  for (const std::string_view name : {"dsv3-tiny-fp8", "dsv2-tiny-bf16", "qwen3moe-tiny-bf16"}) {
    const auto whole = load(golden(name), {});
    const auto sliced = load(golden(name), {.slice_bytes = 1});  // 128 rows at a time
    ASSERT_TRUE(whole) << whole.error().message;
    ASSERT_TRUE(sliced) << sliced.error().message;
    EXPECT_TRUE(same_bytes(whole->dense_arena, sliced->dense_arena));
    EXPECT_TRUE(same_bytes(whole->expert_arena, sliced->expert_arena));
    EXPECT_EQ(whole->checkpoint_bytes_read, sliced->checkpoint_bytes_read);
  }
}

TEST_F(Weights, ShowInTheFingerprintOfTheCheckpoint) {
  MakeCheckpointOptions options{.shape = "tiny", .folder = folder_, .num_layers = 2};
  ASSERT_TRUE(make_checkpoint(options));
  const std::string fingerprint = *Checkpoint::open(folder_, {})->fingerprint();
  ASSERT_TRUE(make_checkpoint(options));
  EXPECT_EQ(*Checkpoint::open(folder_, {})->fingerprint(), fingerprint);
  options.seed = 2;
  ASSERT_TRUE(make_checkpoint(options));
  EXPECT_NE(*Checkpoint::open(folder_, {})->fingerprint(), fingerprint);
}

}  // namespace
}  // namespace wideep::model
