#include "base/byte_codec.h"

#include <gtest/gtest.h>

#include <array>

namespace wideep {
namespace {

TEST(ByteCodec, ReadsWhatWasWritten) {
  ByteWriter writer;
  writer.number(uint16_t{0x0102});
  writer.text("abc");
  writer.text<uint32_t>("");
  writer.number(int64_t{-5});
  writer.bytes(std::as_bytes(std::span("xyz", 3)));
  EXPECT_EQ(writer.out().size(), 2U + 2 + 3 + 4 + 8 + 3);
  EXPECT_EQ(writer.out()[0], std::byte{2});
  ByteReader reader(writer.out());
  EXPECT_EQ(reader.number<uint16_t>(), 0x0102);
  EXPECT_EQ(reader.text(3), "abc");
  EXPECT_EQ(reader.text<uint32_t>(0), "");
  EXPECT_EQ(reader.number<int64_t>(), -5);
  EXPECT_FALSE(reader.is_complete());
  std::array<std::byte, 3> tail;
  reader.bytes(tail);
  EXPECT_EQ(tail[2], std::byte{'z'});
  EXPECT_TRUE(reader.is_complete());
}

TEST(ByteCodec, RemembersThatSomethingWasMissing) {
  ByteWriter writer;
  writer.number(uint16_t{3});
  ByteReader reader(writer.out());
  EXPECT_EQ(reader.number<uint64_t>(), 0U);
  EXPECT_TRUE(reader.failed());
  EXPECT_EQ(reader.number<uint16_t>(), 0U) << "nothing is believed after that";
  EXPECT_FALSE(reader.is_complete());
}

TEST(ByteCodec, RefusesATextAboveItsLimit) {
  ByteWriter writer;
  writer.text("four");
  ByteReader reader(writer.out());
  reader.text(3);
  EXPECT_TRUE(reader.failed());
}

}  // namespace
}  // namespace wideep
