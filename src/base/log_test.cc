#include "base/log.h"

#include "base/check.h"
#include "base/clock.h"

#include <gtest/gtest.h>

namespace wideep {
namespace {

TEST(Log, EscapesControlCharactersAndNamesTheProcess) {
  set_log_name("rank 3");
  testing::internal::CaptureStderr();
  log_warning("bad\nname {}", 7);
  const std::string line = testing::internal::GetCapturedStderr();
  set_log_name("");
  EXPECT_NE(line.find(" W rank 3: bad\\x0aname 7\n"), std::string::npos) << line;
}

TEST(Log, BelowTheLevelNothingIsWritten) {
  testing::internal::CaptureStderr();
  log_debug("quiet");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(CheckDeathTest, PrintsPlaceAndCondition) {
  EXPECT_DEATH(WD_CHECK(1 + 1 == 3), "log_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3");
}

TEST(Clock, NeverRunsBackwards) {
  const TimePoint before = real_clock().now();
  EXPECT_LE(before, real_clock().now());
  EXPECT_GT(real_clock().unix_seconds(), 1700000000);
}

}  // namespace
}  // namespace wideep
