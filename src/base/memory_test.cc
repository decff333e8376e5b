#include "base/memory.h"

#include "base/matrix.h"

#include <gtest/gtest.h>

namespace wideep {
namespace {

TEST(AlignedBuffer, IsZeroedAndAligned) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{5} << 20}) {
    AlignedBuffer buffer(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0U);
    EXPECT_EQ(buffer.bytes().front(), std::byte{0});
    EXPECT_EQ(buffer.bytes().back(), std::byte{0});
    buffer.prefault();
  }
  EXPECT_EQ(AlignedBuffer(0).data(), nullptr);
}

TEST(Matrix, SlicesShareMemory) {
  Matrix<float> m(4, 3);
  m(2, 1) = 5;
  EXPECT_EQ(m.view().slice(2, 2)(0, 1), 5);
  EXPECT_EQ(MatrixView<const float>(m.view()).row(2)[1], 5);
}

}  // namespace
}  // namespace wideep
