#include "fabric/local_socket.h"

#include "base/random.h"
#include "fabric/shared_memory.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>

namespace wideep::fabric {
namespace {

TEST(LocalSocket, PassesMemoryThatTheOtherSideCanOnlyRead) {
  const std::string name = fmt::format("wideep-test-{:016x}", random_device_bits());
  EXPECT_EQ(connect_local(name, local_stream()).error().code, ErrorCode::kNotFound);
  const auto listener = listen_local(name, local_stream(), 1);
  ASSERT_TRUE(listener);
  EXPECT_FALSE(listen_local(name, local_stream(), 1)) << "the name is taken";
  const auto caller = connect_local(name, local_stream());
  ASSERT_TRUE(caller) << caller.error().message;
  const UniqueFd called(accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_EQ(*same_user_peer(called.get()), getpid());

  auto memory = SharedMemory::create("test", 4096, {.populate = false, .others_may_write = false});
  ASSERT_TRUE(memory) << memory.error().message;
  memory->bytes()[7] = std::byte{42};
  const std::array<std::byte, 2> greeting{std::byte{1}, std::byte{2}};
  ASSERT_TRUE(send_descriptor(called.get(), greeting, memory->fd()));
  pollfd readable{.fd = caller->get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&readable, 1, 10'000), 1);
  std::array<std::byte, 8> bytes{};
  auto received = receive_descriptor(caller->get(), bytes);
  ASSERT_TRUE(received && received->descriptor);
  EXPECT_EQ(received->num_bytes, 2U);

  const int fd = received->descriptor.get();
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
  const auto view = SharedMemory::map_read_only(std::move(received->descriptor), 4096);
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(view->bytes()[7], std::byte{42});
  memory->bytes()[7] = std::byte{43};
  EXPECT_EQ(view->bytes()[7], std::byte{43}) << "one memory";
}

}  // namespace
}  // namespace wideep::fabric
