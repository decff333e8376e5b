#include "math/isa.h"

#include <gtest/gtest.h>

namespace wideep::math {
namespace {

TEST(Isa, NamesReadBack) {
  for (const Isa isa : supported_isas())
    EXPECT_EQ(parse_isa(name(isa)), isa);
  EXPECT_FALSE(parse_isa("mmx"));
}

}  // namespace
}  // namespace wideep::math
