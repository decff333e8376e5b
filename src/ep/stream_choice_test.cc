#include "ep/stream_choice.h"

#include <gtest/gtest.h>

namespace wideep::ep {
namespace {

using std::chrono::microseconds;

constexpr int64_t kBytes = 1 << 20;

// How many of `count` exchanges stream on a machine where that takes `streamed` and writing plainly
// `plain`.
int run(StreamChoice& choice, int count, microseconds streamed, microseconds plain) {
  int num_streamed = 0;
  for (int i = 0; i < count; ++i) {
    choice.open(kBytes, true);
    num_streamed += choice.streams() ? 1 : 0;
    if (!choice.is_trial()) continue;
    choice.record(false, kBytes, plain);
    choice.record(true, kBytes, streamed);
  }
  return num_streamed;
}

TEST(StreamChoice, TakesTheFasterWay) {
  StreamChoice slow_stream;
  const int before = run(slow_stream, 64, microseconds{100}, microseconds{30});
  EXPECT_LT(before, 8) << "it streams until it has tried both";
  EXPECT_EQ(run(slow_stream, 640, microseconds{100}, microseconds{30}), 0);
  StreamChoice fast_stream;
  EXPECT_EQ(run(fast_stream, 640, microseconds{30}, microseconds{100}), 640);
}

TEST(StreamChoice, CountsTheWayBackFromMemory) {
  StreamChoice choice;
  EXPECT_LT(run(choice, 64, microseconds{50}, microseconds{100}), 8);
}

TEST(StreamChoice, ChangesItsMindWhenTheMachineDoes) {
  StreamChoice choice;
  run(choice, 640, microseconds{100}, microseconds{30});
  run(choice, 3 * StreamChoice::kTryEvery, microseconds{30}, microseconds{100});
  EXPECT_GT(run(choice, 64, microseconds{30}, microseconds{100}), 60);
}

TEST(StreamChoice, ForgetsOneThatWasInterrupted) {
  StreamChoice choice;
  run(choice, 64, microseconds{100}, microseconds{30});
  run(choice, StreamChoice::kTryEvery, microseconds{100}, microseconds{100'000});
  run(choice, 2 * StreamChoice::kTryEvery, microseconds{100}, microseconds{30});
  EXPECT_EQ(run(choice, 64, microseconds{100}, microseconds{30}), 0);
}

TEST(StreamChoice, StreamsWhatDoesNotFitWhateverIsBetterElse) {
  StreamChoice choice;
  run(choice, 64, microseconds{100}, microseconds{30});
  for (int i = 0; i < 100; ++i) {
    choice.open(kBytes, false);
    EXPECT_TRUE(choice.streams());
    EXPECT_FALSE(choice.is_trial());
  }
  choice.open(kBytes, true);
  EXPECT_FALSE(choice.streams());
}

TEST(StreamChoice, TriesBothWaysNowAndThenForAsLongAsItLives) {
  StreamChoice choice;
  int num_trials = 0;
  for (int i = 0; i < 10 * StreamChoice::kTryEvery; ++i) {
    choice.open(kBytes, true);
    num_trials += choice.is_trial() ? 1 : 0;
  }
  EXPECT_EQ(num_trials, 10);
}

TEST(StreamChoice, TriesNothingWithAFewBytes) {
  StreamChoice choice;
  for (int i = 0; i < 200; ++i) {
    choice.open(StreamChoice::kBytesMin - 1, true);
    EXPECT_TRUE(choice.streams());
    EXPECT_FALSE(choice.is_trial());
  }
}

}  // namespace
}  // namespace wideep::ep
