#include "server/engine/outbox.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;

std::shared_ptr<Step> StepThat(std::function<void(const Fault&, StepAnswer)> done) {
  auto step = std::make_shared<Step>();
  step->done = std::move(done);
  return step;
}

TEST(OutboxTest, SendsInOrderAndLetsGoOfTheMessages) {
  Outbox outbox;
  std::vector<uint32_t> told;
  std::weak_ptr<int> message;
  for (const uint32_t replayed : {1u, 2u, 3u}) {
    auto step = StepThat([&told](const Fault& fault, const StepAnswer& answer) {
      EXPECT_TRUE(fault.ok());
      told.push_back(answer.replayed_rows);
    });
    const auto bytes = std::make_shared<int>();
    message = bytes;
    step->message = bytes;
    StepAnswer answer;
    answer.replayed_rows = replayed;
    outbox.Put({std::move(step), {}, std::move(answer)});
  }
  EXPECT_TRUE(outbox.SendOne());
  EXPECT_THAT(told, ElementsAre(1));
  EXPECT_FALSE(message.expired());
  outbox.SendAll();
  EXPECT_THAT(told, ElementsAre(1, 2, 3));
  EXPECT_TRUE(message.expired());
  EXPECT_FALSE(outbox.SendOne());
}

// Two threads that send pass each other.
TEST(OutboxTest, WhatIsInOrderIsTheEnginesToSend) {
  Outbox outbox;
  std::vector<int> told;
  for (int i = 0; i < 3; ++i) {
    auto step = StepThat([&told, i](const Fault&, const StepAnswer&) { told.push_back(i); });
    step->in_order = i == 1;
    outbox.Put({std::move(step), {}, {}});
  }
  EXPECT_TRUE(outbox.SendOne());
  EXPECT_FALSE(outbox.SendOne());
  EXPECT_THAT(told, ElementsAre(0));
  outbox.SendAll();
  EXPECT_THAT(told, ElementsAre(0, 1, 2));
}

// What sends an answer may itself find the next one.
TEST(OutboxTest, IsOpenWhileItSends) {
  Outbox outbox;
  int told = 0;
  const auto count = [&told](const Fault&, const StepAnswer&) { ++told; };
  outbox.Put({StepThat([&](const Fault&, const StepAnswer&) {
                outbox.Put({StepThat(count), {}, {}});
                EXPECT_TRUE(outbox.SendOne());
              }),
              {},
              {}});
  outbox.SendAll();
  EXPECT_EQ(told, 1);
}

TEST(OutboxTest, EachIsSentOnceWhoeverSends) {
  constexpr int kLetters = 20000;
  Outbox outbox;
  std::atomic<int> told = 0;
  std::atomic<bool> over = false;
  std::vector<std::thread> helpers;
  for (int i = 0; i < 3; ++i) {
    helpers.emplace_back([&] {
      while (!over) outbox.SendOne();
    });
  }
  for (int i = 0; i < kLetters; ++i) {
    outbox.Put({StepThat([&told](const Fault&, const StepAnswer&) { ++told; }), {}, {}});
    if (i % 8 == 0) outbox.SendAll();
  }
  outbox.SendAll();
  over = true;
  for (std::thread& helper : helpers) helper.join();
  EXPECT_EQ(told, kLetters);
  EXPECT_FALSE(outbox.SendOne());
}

}  // namespace
}  // namespace gdn
