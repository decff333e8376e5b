// The ways a checkpoint can store its weights, each against another way of storing the same values.
#include "base/file.h"
#include "base/json.h"
#include "ep/local_all_to_all.h"
#include "model/golden.h"
#include "model/golden_run.h"
#include "model/load_model.h"
#include "model/matrix_reader.h"
#include "model/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace wideep::model {
namespace {

std::string golden(std::string_view name) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, name);
}

// Rewrites the checkpoints of a golden set.
class StorageTest : public testing::Test {
 protected:
  StorageTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fmt::format("{}wideep_{}_{}", testing::TempDir(), test->name(), getpid());
  }

  ~StorageTest() override { std::filesystem::remove_all(folder_); }

  std::string make_folder(std::string_view name, std::string_view set) {
    const std::string path = fmt::format("{}/{}", folder_, name);
    std::filesystem::create_directories(path + "/expected");
    const auto copy = [&](std::string_view file) {
      std::filesystem::copy(fmt::format("{}/{}", golden(set), file),
                            fmt::format("{}/{}", path, file));
    };
    copy("config.json");
    copy("expected/golden.safetensors");
    return path;
  }

  std::string folder_;
};

std::vector<TensorSpec> all_specs(const ModelConfig& config) {
  std::vector<TensorSpec> specs;
  EXPECT_TRUE(for_each_tensor(config, false, [&](const TensorSpec& spec) -> Status {
    specs.push_back(spec);
    return {};
  }));
  return specs;
}

std::vector<int64_t> shape_of(const TensorSpec& spec) {
  return spec.cols > 0 ? std::vector{spec.rows, spec.cols} : std::vector{spec.rows};
}

uint16_t to_f16(float value) {
  return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}

// Every tensor as F32 or F16.
void write_as(const Checkpoint& from, Dtype dtype, const std::string& folder) {
  SafetensorsWriter writer(folder, 1 << 30);
  const std::vector<TensorSpec> specs = all_specs(from.config());
  for (const TensorSpec& spec : specs)
    writer.declare(spec.name, dtype, shape_of(spec));
  for (const TensorSpec& spec : specs) {
    const std::vector<float> values = *read_floats(*from.locate(spec));
    if (dtype == Dtype::kF32) {
      ASSERT_TRUE(writer.write(std::as_bytes(std::span(values))));
      continue;
    }
    std::vector<uint16_t> halves(values.size());
    std::ranges::transform(values, halves.begin(), to_f16);
    ASSERT_TRUE(writer.write(std::as_bytes(std::span(halves))));
  }
  ASSERT_TRUE(writer.finish());
}

GoldenReport check(const std::string& folder, math::Precision precision) {
  ThreadPool pool({.num_threads = 1});
  LoadOptions load{.rows_max = 128, .block_tokens = 16};
  load.weights.precision = precision;
  auto report = check_golden(folder, pool, load);
  EXPECT_TRUE(report) << report.error().message;
  return report ? *report : GoldenReport{};
}

TEST_F(StorageTest, F32AndF16CheckpointsGiveTheGoldenValues) {
  const Checkpoint from = *Checkpoint::open(golden("dsv2-tiny-bf16"), {});
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16}) {
    const std::string folder = make_folder(name(dtype), "dsv2-tiny-bf16");
    write_as(from, dtype, folder);
    for (const math::Precision precision : {math::Precision::kF32, math::Precision::kMixed}) {
      const GoldenReport report = check(folder, precision);
      EXPECT_TRUE(report.passed()) << name(dtype) << "\n" << report.describe();
    }
  }
}

// One matrix in groups of 32 columns: nibbles and bf16 scales as compressed-tensors packs them, and
// the values that they mean.
struct Int4Matrix {
  std::vector<int32_t> words;
  std::vector<uint16_t> scales;
  std::vector<float> values;

  Int4Matrix(const std::vector<float>& from, int64_t rows, int64_t cols)
      : words(static_cast<size_t>(rows * cols / 8)),
        scales(static_cast<size_t>(rows * cols / 32)),
        values(from.size()) {
    for (size_t group = 0; group < scales.size(); ++group) {
      float largest = 1e-6F;
      for (size_t i = 0; i < 32; ++i)
        largest = std::max(largest, std::abs(from[group * 32 + i]));
      scales[group] = math::f32_to_bf16(largest / 7);
      const float scale = math::bf16_to_f32(scales[group]);
      for (size_t i = 0; i < 32; ++i) {
        const size_t at = group * 32 + i;
        const int code = std::clamp(static_cast<int>(std::lround(from[at] / scale)), -8, 7);
        const auto nibble = static_cast<uint32_t>(code + 8);
        words[at / 8] =
            static_cast<int32_t>(static_cast<uint32_t>(words[at / 8]) | nibble << (at % 8 * 4));
        values[at] = static_cast<float>(code) * scale;
      }
    }
  }
};

constexpr std::string_view kInt4Config =
    R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
        {"group_0": {"weights": {"num_bits": 4, "group_size": 32, "type": "int",
                                 "symmetric": true}}}})";

// The experts of `from` in groups of 4-bit integers, in `packed` as Kimi-K2 ships them and in
// `plain` as the F32 values they mean.
void write_int4(const Checkpoint& from, const std::string& packed, const std::string& plain) {
  SafetensorsWriter packed_writer(packed, 1 << 30);
  SafetensorsWriter plain_writer(plain, 1 << 30);
  const std::vector<TensorSpec> specs = all_specs(from.config());
  const auto stem = [](const TensorSpec& spec) {
    return spec.name.substr(0, spec.name.size() - std::strlen(".weight"));
  };
  for (const TensorSpec& spec : specs) {
    plain_writer.declare(spec.name, Dtype::kF32, shape_of(spec));
    if (spec.expert < 0) {
      packed_writer.declare(spec.name, Dtype::kF32, shape_of(spec));
      continue;
    }
    packed_writer.declare(stem(spec) + ".weight_packed", Dtype::kI32, {spec.rows, spec.cols / 8});
    packed_writer.declare(stem(spec) + ".weight_scale", Dtype::kBf16, {spec.rows, spec.cols / 32});
    packed_writer.declare(stem(spec) + ".weight_shape", Dtype::kI64, {2});
  }
  for (const TensorSpec& spec : specs) {
    const std::vector<float> values = *read_floats(*from.locate(spec));
    if (spec.expert < 0) {
      ASSERT_TRUE(packed_writer.write(std::as_bytes(std::span(values))));
      ASSERT_TRUE(plain_writer.write(std::as_bytes(std::span(values))));
      continue;
    }
    const Int4Matrix matrix(values, spec.rows, spec.cols);
    const std::array<int64_t, 2> shape = {spec.rows, spec.cols};
    ASSERT_TRUE(packed_writer.write(std::as_bytes(std::span(matrix.words))));
    ASSERT_TRUE(packed_writer.write(std::as_bytes(std::span(matrix.scales))));
    ASSERT_TRUE(packed_writer.write(std::as_bytes(std::span(shape))));
    ASSERT_TRUE(plain_writer.write(std::as_bytes(std::span(matrix.values))));
  }
  ASSERT_TRUE(packed_writer.finish());
  ASSERT_TRUE(plain_writer.finish());
  Json config = *parse_json(*read_file(packed + "/config.json", 1 << 20));
  config.set("quantization_config", *parse_json(kInt4Config));
  ASSERT_TRUE(write_file(packed + "/config.json", config.dump()));
}

std::vector<float> logits_of(const std::string& folder, math::Precision precision) {
  ThreadPool pool({.num_threads = 1});
  LoadOptions load{.rows_max = 64, .block_tokens = 16};
  load.weights.precision = precision;
  const auto model = load_model(folder, pool, load);
  WD_CHECK(model.has_value());
  const ModelConfig& config = (*model)->config();
  ep::LocalAllToAll all_to_all(pool, math::kernels((*model)->numeric().isa),
                               {.formats = (*model)->numeric().row_formats(),
                                .hidden = config.hidden_size,
                                .num_experts = config.num_experts(),
                                .top_k = config.router.top_k,
                                .tokens_max = 64});
  GoldenRunner runner(**model, all_to_all, 16);
  GoldenSequence sequence;
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < 40; ++i)
    tokens.push_back(TokenId{i * 37 % 448});
  const GoldenRunner::Feed feed{&sequence, tokens};
  const auto logits = *runner.forward(std::span(&feed, 1));
  return {logits.data, logits.data + logits.rows * logits.cols};
}

// In the f32 path the packed checkpoint is its values, bit for bit; in the mixed path the experts
// multiply int8 rows.
TEST_F(StorageTest, PackedInt4ExpertsAreTheValuesTheyMean) {
  const Checkpoint from = *Checkpoint::open(golden("dsv2-tiny-bf16"), {});
  const std::string packed = make_folder("packed", "dsv2-tiny-bf16");
  const std::string plain = make_folder("plain", "dsv2-tiny-bf16");
  write_int4(from, packed, plain);
  EXPECT_EQ(logits_of(packed, math::Precision::kF32), logits_of(plain, math::Precision::kF32));
  const std::vector<float> mixed = logits_of(packed, math::Precision::kMixed);
  std::vector<float> difference = logits_of(plain, math::Precision::kF32);
  for (size_t i = 0; i < mixed.size(); ++i)
    difference[i] = std::abs(difference[i] - mixed[i]);
  const auto middle = difference.begin() + static_cast<int64_t>(difference.size() / 2);
  std::ranges::nth_element(difference, middle);
  EXPECT_LT(*middle, 0.06);
}

TEST_F(StorageTest, PackedInt4WithoutScalesIsRefused) {
  const Checkpoint from = *Checkpoint::open(golden("dsv2-tiny-bf16"), {});
  const std::string folder = make_folder("broken", "dsv2-tiny-bf16");
  SafetensorsWriter writer(folder, 1 << 30);
  std::vector<std::byte> zeros;
  const auto declare = [&](const std::string& name, Dtype dtype, std::vector<int64_t> shape) {
    int64_t bytes = bytes_of(dtype);
    for (const int64_t extent : shape)
      bytes *= extent;
    zeros.resize(zeros.size() + static_cast<size_t>(bytes));
    writer.declare(name, dtype, std::move(shape));
  };
  for (const TensorSpec& spec : all_specs(from.config())) {
    if (spec.expert < 0) {
      declare(spec.name, Dtype::kF32, shape_of(spec));
    } else {
      const std::string stem = spec.name.substr(0, spec.name.size() - std::strlen(".weight"));
      declare(stem + ".weight_packed", Dtype::kI32, {spec.rows, spec.cols / 8});
    }
  }
  ASSERT_TRUE(writer.write(zeros));
  ASSERT_TRUE(writer.finish());
  const auto checkpoint = Checkpoint::open(folder, {});
  ASSERT_FALSE(checkpoint);
  EXPECT_THAT(checkpoint.error().message,
              testing::HasSubstr("experts.0.gate_proj.weight_scale' is missing"));
}

}  // namespace
}  // namespace wideep::model
