#include "fabric/meeting.h"

#include "base/test_folder.h"
#include "fabric/stream.h"
#include "fabric/talk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace wideep::fabric {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ContainsRegex;
using testing::HasSubstr;

class MeetingOf : public testing::Test {
 protected:
  MeetingOptions options(int32_t rank, int32_t num_ranks) const {
    return {.leader = leader_,
            .self = {.rank = RankId{rank},
                     .num_ranks = num_ranks,
                     .host = "host",
                     .address = {.host = "127.0.0.1", .port = 1},
                     .rules = "rules"},
            .key = key_,
            .timeout = seconds{30},
            .liveness_deadline = liveness_,
            .patience = patience_};
  }

  std::unique_ptr<Meeting> begin(int32_t rank, int32_t num_ranks) const {
    auto meeting = Meeting::begin(options(rank, num_ranks));
    EXPECT_TRUE(meeting.has_value()) << meeting.error().message;
    return *std::move(meeting);
  }

  UniqueFd call() const {
    auto socket = connect_to(leader_, real_clock().now() + seconds{30});
    EXPECT_TRUE(socket.has_value()) << socket.error().message;
    return *std::move(socket);
  }

  // A rank that says who it is, and nothing more.
  Talk introduce(int32_t rank, int32_t num_ranks) const {
    auto stream = open_stream(call(), TlsRole::kClient, key_, real_clock().now() + seconds{30});
    EXPECT_TRUE(stream.has_value()) << stream.error().message;
    Talk talk(*std::move(stream));
    EXPECT_TRUE(talk.say(encode(options(rank, num_ranks).self)).has_value());
    return talk;
  }

  // Until the other end has said something, or has ended.
  static bool await_words(Talk& talk) {
    const TimePoint deadline = real_clock().now() + seconds{30};
    for (;;) {
      const auto heard = talk.hear();
      if (!heard) return false;
      if (!heard->empty()) return true;
      if (!WaitLimit(deadline).await(talk.fd(), POLLIN)) return false;
    }
  }

  const TestFolder folder_;
  const net::Address leader_ = net::Address::unix_socket(folder_ / "meeting");
  Duration liveness_ = seconds{30};
  Duration patience_ = seconds{30};
  std::optional<PresharedKey> key_;
};

TEST_F(MeetingOf, AllGoOnWhenAllHaveLinked) {
  const auto first = begin(0, 3);
  const auto second = begin(1, 3);
  const auto third = begin(2, 3);
  for (Meeting* meeting : {first.get(), second.get(), third.get()}) {
    const auto members = meeting->members();
    ASSERT_TRUE(members.has_value()) << members.error().message;
    EXPECT_EQ(members->addresses.size(), 3);
  }
  std::vector<Status> outcomes(3);
  {
    const std::jthread one([&] { outcomes[0] = first->all_linked(); });
    const std::jthread two([&] { outcomes[1] = second->all_linked(); });
    outcomes[2] = third->all_linked();
  }
  for (const Status& outcome : outcomes)
    EXPECT_TRUE(outcome.has_value()) << outcome.error().message;
}

TEST_F(MeetingOf, StrangersWhoSayNothingOrHalfOfItHoldUpNobody) {
  patience_ = hours{1};
  const auto first = begin(0, 2);
  std::vector<Talk> strangers;
  for (int i = 0; i < 100; ++i)
    strangers.emplace_back(plain_stream(call()));
  const UniqueFd half = call();
  const uint32_t length = 1 << 19;
  ASSERT_EQ(write(half.get(), &length, sizeof length), ssize_t{sizeof length});
  const UniqueFd other = call();
  constexpr std::string_view kOther = "GET / HTTP/1.1\r\n\r\n";
  ASSERT_EQ(write(other.get(), kOther.data(), kOther.size()), std::ssize(kOther));
  const auto second = begin(1, 2);
  EXPECT_TRUE(second->members().has_value());
  EXPECT_TRUE(first->members().has_value());
}

TEST_F(MeetingOf, AThousandCallersWhoHangUpDoNotEndIt) {
  const auto first = begin(0, 2);
  for (int i = 0; i < 1100; ++i)
    call();
  const auto second = begin(1, 2);
  const auto members = second->members();
  EXPECT_TRUE(members.has_value()) << members.error().message;
  EXPECT_TRUE(first->members().has_value());
}

TEST_F(MeetingOf, ARankThatDiesBeforeAllAreThereMayComeAgain) {
  const auto first = begin(0, 3);
  {
    const Talk dies = introduce(1, 3);
  }
  const auto third = begin(2, 3);
  // Its end and its return may come to the leader at once; then it is told to come again.
  std::unique_ptr<Meeting> second;
  Result<Membership> members;
  do {
    second = begin(1, 3);
    members = second->members();
  } while (!members && members.error().code == ErrorCode::kPeerLost);
  EXPECT_TRUE(members.has_value()) << members.error().message;
  EXPECT_TRUE(third->members().has_value());
}

TEST_F(MeetingOf, ARankThatIsStoppedBeforeAllAreThereMayComeAgain) {
  liveness_ = seconds{3};  // the others must live
  const auto first = begin(0, 3);
  Talk stopped = introduce(1, 3);
  while (await_words(stopped)) {
  }
  const auto second = begin(1, 3);
  const auto third = begin(2, 3);
  EXPECT_TRUE(second->members().has_value());
}

TEST_F(MeetingOf, ARankThatIsStoppedBeforeAllHaveLinkedEndsItForAll) {
  liveness_ = milliseconds{300};
  const auto first = begin(0, 2);
  Talk stopped = introduce(1, 2);
  EXPECT_TRUE(await_words(stopped));
  EXPECT_THAT(first->all_linked().error().message, HasSubstr("rank 1 lost (no heartbeat"));
}

TEST_F(MeetingOf, ALeaderThatDiesOrIsStoppedBeforeItAnswersIsLost) {
  key_ = *PresharedKey::from_secret("the secret of this test");
  const UniqueFd listener = *listen_at(leader_);
  {
    std::jthread dies([&] { accept_call(listener.get(), real_clock().now() + seconds{30}); });
    const auto second = Meeting::begin(options(1, 2));
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code, ErrorCode::kPeerLost) << second.error().message;
    EXPECT_THAT(second.error().message,
                HasSubstr("rank 0 lost (handshake (is it the same key?): connection closed"));
  }
  liveness_ = milliseconds{300};
  const auto second = Meeting::begin(options(1, 2));  // the kernel takes its call
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kPeerLost) << second.error().message;
  EXPECT_THAT(second.error().message, HasSubstr("rank 0 lost (handshake: no answer"));
}

// Many times: what rank 1 says and the leader's end may cross.
TEST_F(MeetingOf, ARankThatDiesBeforeAllHaveLinkedEndsItForAll) {
  for (int time = 0; time < 100; ++time) {
    if (time == 50) key_ = *PresharedKey::from_secret("the secret of this test");
    const auto first = begin(0, 3);
    const auto second = begin(1, 3);
    {
      Talk dies = introduce(2, 3);
      ASSERT_TRUE(await_words(dies));
    }
    for (Meeting* meeting : {first.get(), second.get()}) {
      const Status outcome = meeting->all_linked();
      ASSERT_FALSE(outcome.has_value());
      ASSERT_EQ(outcome.error().code, ErrorCode::kPeerLost) << outcome.error().message;
      ASSERT_THAT(outcome.error().message,
                  ContainsRegex("rank 2 lost [(](read: )?connection closed"));
      pollfd interrupt{.fd = meeting->interrupt(), .events = POLLIN, .revents = 0};
      EXPECT_EQ(poll(&interrupt, 1, 0), 1) << "whoever waits for rank 2 stops";
    }
  }
}

TEST_F(MeetingOf, ARankThatCannotLinkTellsTheOthersWhy) {
  const auto first = begin(0, 3);
  const auto second = begin(1, 3);
  const auto third = begin(2, 3);
  ASSERT_TRUE(third->members().has_value());
  const Error own{ErrorCode::kExhausted, "no descriptors are left"};
  EXPECT_EQ(third->give_up(own).message, own.message);
  for (Meeting* meeting : {first.get(), second.get()}) {
    const Status outcome = meeting->all_linked();
    ASSERT_FALSE(outcome.has_value());
    EXPECT_EQ(outcome.error().code, ErrorCode::kPeerLost);
    EXPECT_THAT(outcome.error().message, HasSubstr("rank 2 lost"));
    EXPECT_THAT(outcome.error().message, HasSubstr("no descriptors are left"));
  }
}

TEST_F(MeetingOf, WhoeverGivesUpBecauseOfSomebodyElseNamesThatOne) {
  const auto first = begin(0, 3);
  const auto second = begin(1, 3);
  {
    Talk dies = introduce(2, 3);
    ASSERT_TRUE(await_words(dies));
  }
  const Error cause = second->give_up({ErrorCode::kInvalidArgument, "greeting of 0 bytes"});
  EXPECT_EQ(cause.code, ErrorCode::kPeerLost);
  EXPECT_THAT(cause.message, HasSubstr("rank 2 lost"));
}

TEST_F(MeetingOf, ALeaderThatEndsIsALostRank) {
  auto first = begin(0, 3);
  const auto second = begin(1, 3);
  first.reset();
  const auto members = second->members();
  ASSERT_FALSE(members.has_value());
  EXPECT_EQ(members.error().code, ErrorCode::kPeerLost) << members.error().message;
}

TEST_F(MeetingOf, ALeaderThatIsSilentIsALostRank) {
  liveness_ = milliseconds{300};
  const auto listener = listen_at(leader_);
  const auto second = begin(1, 2);
  const auto members = second->members();
  ASSERT_FALSE(members.has_value());
  EXPECT_EQ(members.error().code, ErrorCode::kPeerLost);
  EXPECT_THAT(members.error().message, HasSubstr("rank 0 lost (no heartbeat"));
}

TEST_F(MeetingOf, WhoeverDoesNotComeIsNamedToAll) {
  MeetingOptions impatient = options(0, 4);
  impatient.timeout = seconds{3};
  auto first = Meeting::begin(impatient);
  const auto second = begin(1, 4);
  for (Meeting* meeting : {first->get(), second.get()}) {
    const auto members = meeting->members();
    ASSERT_FALSE(members.has_value());
    EXPECT_THAT(members.error().message, HasSubstr("ranks 2, 3 have not come"));
  }
  EXPECT_EQ((*first)->members().error().code, ErrorCode::kTimeout);
  EXPECT_EQ(second->members().error().code, ErrorCode::kPeerLost);
}

}  // namespace
}  // namespace wideep::fabric
