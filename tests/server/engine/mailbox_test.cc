#include "server/engine/mailbox.h"

#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using Result = Mailbox::Result;

Arrival StepOf(size_t rows, size_t bytes) {
  auto message = std::make_shared<std::string>(bytes, 'x');
  auto step = std::make_shared<Step>();
  step->request.slots.assign(rows, 0);
  step->request.input = {*message};
  step->message = message;
  return {absl::UnixEpoch(), step, nullptr};
}

Arrival CallOf(size_t ids, size_t bytes) {
  auto call = std::make_shared<Call>();
  call->place.request_ids.assign(ids, "a");
  call->bytes = bytes;
  return {absl::UnixEpoch(), nullptr, call};
}

Arrival ACall() { return CallOf(1, 1); }

TEST(MailboxTest, KeepsTheOrderOfArrival) {
  Mailbox mailbox(10, 100, 1000);
  std::vector<Arrival> sent = {StepOf(1, 1), ACall(), StepOf(1, 1)};
  for (const Arrival& arrival : sent) EXPECT_EQ(mailbox.Put(arrival), Result::kTaken);
  std::vector<Arrival> taken;
  mailbox.Take(&taken);
  ASSERT_EQ(taken.size(), 3u);
  EXPECT_EQ(taken[0].step, sent[0].step);
  EXPECT_EQ(taken[1].call, sent[1].call);
  EXPECT_EQ(taken[2].step, sent[2].step);
  mailbox.Take(&taken);
  EXPECT_EQ(taken.size(), 3u);
}

TEST(MailboxTest, WhoLooksForSomethingLendsAHand) {
  Mailbox mailbox(10, 100, 1000);
  std::atomic<int> helped = 0;
  const std::thread::id looking = std::this_thread::get_id();
  std::thread other([&] {
    mailbox.hand().Share(1 << 20, [&](size_t, size_t) {
      if (std::this_thread::get_id() == looking) ++helped;
      while (helped == 0) std::this_thread::yield();
    });
  });
  std::vector<Arrival> taken;
  while (helped == 0) {
    EXPECT_EQ(mailbox.Put(StepOf(1, 1)), Result::kTaken);
    mailbox.Take(&taken);
    mailbox.Done(*taken.back().step);
    mailbox.Wait(absl::InfinitePast());
  }
  other.join();
}

TEST(MailboxTest, BoundsTheStepsThatWaitUntilTheyAreDone) {
  Mailbox mailbox(2, 100, 1000);
  const Arrival first = StepOf(1, 1);
  EXPECT_EQ(mailbox.Put(first), Result::kTaken);
  EXPECT_EQ(mailbox.Put(StepOf(1, 1)), Result::kTaken);
  EXPECT_EQ(mailbox.Put(StepOf(1, 1)), Result::kFull);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kTaken);
  std::vector<Arrival> taken;
  mailbox.Take(&taken);
  EXPECT_EQ(taken.size(), 3u);
  EXPECT_EQ(mailbox.waiting(), 2u);
  EXPECT_EQ(mailbox.Put(StepOf(1, 1)), Result::kFull);
  mailbox.Done(*first.step);
  EXPECT_EQ(mailbox.waiting(), 1u);
  EXPECT_EQ(mailbox.Put(StepOf(1, 1)), Result::kTaken);
}

TEST(MailboxTest, BoundsTheRowsThatWait) {
  Mailbox mailbox(10, 100, 100000);
  const Arrival first = StepOf(90, 0);
  EXPECT_EQ(mailbox.Put(first), Result::kTaken);
  EXPECT_EQ(mailbox.Room(*StepOf(11, 0).step), Result::kFull);
  EXPECT_EQ(mailbox.Put(StepOf(11, 0)), Result::kFull);
  EXPECT_EQ(mailbox.Room(*StepOf(10, 0).step), Result::kTaken);
  EXPECT_EQ(mailbox.Put(StepOf(10, 0)), Result::kTaken);
  mailbox.Done(*first.step);
  EXPECT_EQ(mailbox.Put(StepOf(90, 0)), Result::kTaken);
}

TEST(MailboxTest, BoundsTheBytesThatWait) {
  Mailbox mailbox(10, 100, 1000);
  const Arrival first = StepOf(1, 800);
  EXPECT_EQ(mailbox.Put(first), Result::kTaken);
  EXPECT_EQ(mailbox.Put(StepOf(1, 200)), Result::kFull);
  EXPECT_EQ(mailbox.Put(StepOf(1, 50)), Result::kTaken);
  EXPECT_EQ(mailbox.Put(StepOf(90, 0)), Result::kFull);  // a row takes bytes too
  mailbox.Done(*first.step);
  EXPECT_EQ(mailbox.Put(StepOf(1, 800)), Result::kTaken);
}

TEST(MailboxTest, AStepThatIsLargerThanTheBoundFitsAlone) {
  Mailbox mailbox(10, 100, 100);
  EXPECT_EQ(mailbox.Put(StepOf(1, 5000)), Result::kTaken);
  EXPECT_EQ(mailbox.Put(StepOf(1, 0)), Result::kFull);
}

TEST(MailboxTest, BoundsTheCallsThatWaitUntilTheyAreDone) {
  Mailbox mailbox(2, 100, 1000);
  const Arrival first = ACall();
  EXPECT_EQ(mailbox.Put(first), Result::kTaken);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kTaken);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kFull);
  std::vector<Arrival> taken;
  mailbox.Take(&taken);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kFull);
  mailbox.Done(*first.call);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kTaken);
  EXPECT_EQ(mailbox.waiting(), 0u);
}

TEST(MailboxTest, BoundsTheIdsAndBytesOfCallsThatWait) {
  Mailbox ids(10, 100, 100000);
  EXPECT_EQ(ids.Put(CallOf(200, 0)), Result::kTaken);  // it fits alone
  EXPECT_EQ(ids.Put(CallOf(1, 0)), Result::kFull);
  Mailbox bytes(10, 100, 1000);
  const Arrival first = CallOf(0, 800);
  EXPECT_EQ(bytes.Put(first), Result::kTaken);
  EXPECT_EQ(bytes.Put(CallOf(0, 300)), Result::kFull);
  EXPECT_EQ(bytes.Put(CallOf(10, 0)), Result::kFull);  // an id takes bytes too
  EXPECT_EQ(bytes.Put(CallOf(1, 100)), Result::kTaken);
  bytes.Done(*first.call);
  EXPECT_EQ(bytes.Put(CallOf(0, 800)), Result::kTaken);
}

TEST(MailboxTest, StepsAndCallsTakeNoRoomFromOneAnother) {
  Mailbox mailbox(1, 1, 100);
  EXPECT_EQ(mailbox.Put(StepOf(1, 30)), Result::kTaken);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kTaken);
  EXPECT_EQ(mailbox.Put(StepOf(1, 30)), Result::kFull);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kFull);
}

TEST(MailboxTest, TakesNothingOnceItIsClosed) {
  Mailbox mailbox(10, 100, 1000);
  EXPECT_EQ(mailbox.Put(StepOf(1, 1)), Result::kTaken);
  mailbox.Close();
  EXPECT_EQ(mailbox.Put(StepOf(1, 1)), Result::kClosed);
  EXPECT_EQ(mailbox.Room(*StepOf(1, 1).step), Result::kClosed);
  EXPECT_EQ(mailbox.Put(ACall()), Result::kClosed);
  std::vector<Arrival> taken;
  mailbox.Take(&taken);
  EXPECT_EQ(taken.size(), 1u);
}

// These return at all: nothing here waits for a clock.
TEST(MailboxTest, WaitsForAnArrivalOrAWakeOrATime) {
  Mailbox mailbox(10, 100, 1000);
  mailbox.Wait(absl::InfinitePast());
  std::thread sender([&] { mailbox.Put(ACall()); });
  mailbox.Wait(absl::InfiniteFuture());
  sender.join();
  mailbox.Wait(absl::InfiniteFuture());  // it is still there
  std::vector<Arrival> taken;
  mailbox.Take(&taken);
  EXPECT_EQ(taken.size(), 1u);
  std::thread waker([&] { mailbox.Wake(); });
  mailbox.Wait(absl::InfiniteFuture());
  waker.join();
}

}  // namespace
}  // namespace gdn
