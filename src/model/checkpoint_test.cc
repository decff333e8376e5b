#include "model/checkpoint.h"

#include "base/file.h"
#include "base/json.h"
#include "model/matrix_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

namespace wideep::model {
namespace {

using testing::HasSubstr;

std::string golden(std::string_view name) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, name);
}

// Opens a folder and reads every value that the config calls for.
Status read_all(const std::string& folder) {
  WD_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(folder, {}));
  MatrixReader reader;
  return for_each_tensor(checkpoint.config(), false, [&](const TensorSpec& spec) -> Status {
    WD_ASSIGN_OR_RETURN(const TensorSource source, checkpoint.locate(spec));
    WD_TRY(reader.read(source, {0, source.rows}));
    return {};
  });
}

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

TEST(Checkpoint, RefusesEveryBrokenFolderNamingFileAndTensor) {
  const auto cases = parse_json(*read_file(golden("bad/cases.json"), 1 << 20));
  ASSERT_TRUE(cases);
  ASSERT_GE(cases->as_array()->size(), 40U);
  const int64_t idle_bytes = peak_memory_bytes();
  for (const Json& item : *cases->as_array()) {
    const std::string& folder = *item.find("folder")->as_string();
    SCOPED_TRACE(folder);
    const Status status = read_all(golden("bad/" + folder));
    ASSERT_EQ(status.has_value(), *item.find("ok")->as_bool())
        << (status ? "accepted" : status.error().message);
    if (status) continue;
    EXPECT_THAT(status.error().message, HasSubstr(*item.find("file")->as_string()));
    const std::string* tensor = item.find("tensor")->as_string();
    if (tensor != nullptr) EXPECT_THAT(status.error().message, HasSubstr(*tensor));
  }
  EXPECT_LT(peak_memory_bytes() - idle_bytes, 64 << 20);
}

TEST(Checkpoint, AcceptsEveryGoldenSet) {
  for (const std::string_view name : {"dsv3-tiny-bf16", "dsv3-tiny-fp8", "dsv3-tiny-mtp",
                                      "dsv2-tiny-bf16", "qwen3moe-tiny-bf16"}) {
    const Status status = read_all(golden(name));
    EXPECT_TRUE(status) << name << ": " << status.error().message;
  }
}

TEST(Checkpoint, AsksForTheDraftLayerOnlyWhenDrafting) {
  EXPECT_TRUE(Checkpoint::open(golden("dsv3-tiny-mtp"), {.draft = true}));
  int64_t with_draft = 0;
  int64_t without = 0;
  const ModelConfig config = *load_config(golden("dsv3-tiny-mtp"));
  ASSERT_TRUE(for_each_tensor(config, true, [&](const TensorSpec&) -> Status {
    ++with_draft;
    return {};
  }));
  ASSERT_TRUE(for_each_tensor(config, false, [&](const TensorSpec&) -> Status {
    ++without;
    return {};
  }));
  EXPECT_EQ(with_draft, 135 - 2);  // the copies of embedding and head are never asked for
  EXPECT_LT(without, with_draft);
}

TEST(Checkpoint, GivesTheSameFingerprintTwiceAndAnotherForAnotherModel) {
  const auto fingerprint = [](std::string_view name) {
    return *Checkpoint::open(golden(name), {})->fingerprint();
  };
  EXPECT_EQ(fingerprint("dsv3-tiny-bf16"), fingerprint("dsv3-tiny-bf16"));
  EXPECT_NE(fingerprint("dsv3-tiny-bf16"), fingerprint("dsv3-tiny-fp8"));
}

TEST(Checkpoint, TakesPlainShardNamesOnly) {
  EXPECT_TRUE(is_plain_shard_name("model-00001-of-00002.safetensors"));
  EXPECT_FALSE(is_plain_shard_name("../model.safetensors"));
  EXPECT_FALSE(is_plain_shard_name("/etc/model.safetensors"));
  EXPECT_FALSE(is_plain_shard_name("a\\b.safetensors"));
  EXPECT_FALSE(is_plain_shard_name("..safetensors"));
  EXPECT_FALSE(is_plain_shard_name(std::string_view("a\0b.safetensors", 15)));
  EXPECT_FALSE(is_plain_shard_name("passwd"));
  EXPECT_FALSE(is_plain_shard_name(std::string(300, 'a') + ".safetensors"));
}

TEST(Checkpoint, SaysWhenThereIsNone) {
  const auto checkpoint = Checkpoint::open("/nonexistent", {});
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace wideep::model
