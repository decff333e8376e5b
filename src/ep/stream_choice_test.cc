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
    choice.open(true);
    num_streamed += choice.streams() ? 1 : 0;
    choice.record(kBytes, choice.streams() ? streamed : plain);
  }
  return num_streamed;
}

TEST(StreamChoice, TakesTheFasterWayAndTriesTheOtherNowAndThen) {
  StreamChoice slow_stream;
  EXPECT_EQ(run(slow_stream, 640, microseconds{100}, microseconds{30}), 1 + 10);
  StreamChoice fast_stream;
  EXPECT_EQ(run(fast_stream, 640, microseconds{30}, microseconds{100}), 640 - 1 - 10);
}

TEST(StreamChoice, ChangesItsMindWhenTheMachineDoes) {
  StreamChoice choice;
  run(choice, 640, microseconds{100}, microseconds{30});
  run(choice, 3 * StreamChoice::kTryEvery, microseconds{30}, microseconds{100});
  EXPECT_GT(run(choice, 64, microseconds{30}, microseconds{100}), 60);
}

TEST(StreamChoice, IsNotMisledByOneThatWasInterrupted) {
  StreamChoice choice;
  run(choice, 20, microseconds{100}, microseconds{30});
  choice.open(true);
  choice.record(kBytes, microseconds{100'000});
  // At worst a few exchanges go the other way, which then shows what it costs.
  EXPECT_LE(run(choice, 40, microseconds{100}, microseconds{30}), 2);
}

TEST(StreamChoice, StreamsWhatDoesNotFitWhateverIsBetterElse) {
  StreamChoice choice;
  run(choice, 10, microseconds{100}, microseconds{30});
  choice.open(false);
  EXPECT_TRUE(choice.streams());
  choice.record(kBytes, microseconds{1});  // tells nothing of what fits
  choice.open(true);
  EXPECT_FALSE(choice.streams());
}

TEST(StreamChoice, LearnsNothingFromAFewBytes) {
  StreamChoice choice;
  for (int i = 0; i < 200; ++i) {
    choice.open(true);
    EXPECT_TRUE(choice.streams());
    choice.record(StreamChoice::kBytesMin - 1, microseconds{1000});
  }
}

}  // namespace
}  // namespace wideep::ep
