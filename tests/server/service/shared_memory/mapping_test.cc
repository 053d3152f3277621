#include "server/service/shared_memory/mapping.h"

#include <cstring>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/shared_object.h"

namespace gdn::test {
namespace {

constexpr size_t kPage = 4096;

std::unique_ptr<SharedMapping> Map(const SharedObject& object, size_t size) {
  auto mapping = SharedMapping::Map(object.fd(), size);
  EXPECT_TRUE(mapping.ok()) << mapping.status();
  return *std::move(mapping);
}

TEST(SharedMappingTest, IsTheObject) {
  const SharedObject object(3 * kPage);
  const auto mapping = Map(object, 3 * kPage);
  mapping->data()[5] = std::byte{7};
  object.data()[kPage] = std::byte{8};
  EXPECT_EQ(object.data()[5], std::byte{7});
  EXPECT_EQ(mapping->data()[kPage], std::byte{8});
  EXPECT_FALSE(mapping->lost());
}

TEST(SharedMappingTest, WhatWasTruncatedReadsAsZeros) {
  SharedObject object(3 * kPage);
  std::memset(object.data(), 1, 3 * kPage);
  const auto mapping = Map(object, 3 * kPage);
  object.Resize(kPage);
  EXPECT_EQ(mapping->data()[0], std::byte{1});
  EXPECT_FALSE(mapping->lost());
  std::vector<std::byte> copy(3 * kPage, std::byte{9});
  std::memcpy(copy.data(), mapping->data(), copy.size());
  EXPECT_TRUE(mapping->lost());
  EXPECT_EQ(copy[2 * kPage], std::byte{0});
  EXPECT_EQ(copy.back(), std::byte{0});
}

TEST(SharedMappingTest, WritesToWhatWasTruncatedGoNowhere) {
  SharedObject object(2 * kPage);
  const auto mapping = Map(object, 2 * kPage);
  object.Resize(0);
  std::memset(mapping->data(), 3, 2 * kPage);
  EXPECT_TRUE(mapping->lost());
  object.Resize(2 * kPage);
  EXPECT_EQ(object.data()[0], std::byte{0});
  EXPECT_EQ(mapping->data()[0], std::byte{3});  // and it stays so
}

TEST(SharedMappingTest, OthersStayAsTheyAre) {
  SharedObject object(kPage);
  SharedObject other(kPage);
  const auto mapping = Map(object, kPage);
  const auto beside = Map(other, kPage);
  other.data()[1] = std::byte{5};
  object.Resize(0);
  EXPECT_EQ(mapping->data()[1], std::byte{0});
  EXPECT_TRUE(mapping->lost());
  EXPECT_FALSE(beside->lost());
  EXPECT_EQ(beside->data()[1], std::byte{5});
}

TEST(SharedMappingTest, APlaceIsUsedAgain) {
  for (int i = 0; i < 5000; ++i) {  // more than there are places
    SharedObject object(kPage, /*filled=*/false);
    const auto mapping = Map(object, kPage);
    ASSERT_FALSE(mapping->lost());
    if (i % 1000 != 0) continue;
    object.Resize(0);
    EXPECT_EQ(mapping->data()[0], std::byte{0});
    EXPECT_TRUE(mapping->lost());
  }
}

TEST(SharedMappingTest, ManyThreadsMeetIt) {
  constexpr size_t kPages = 64;
  SharedObject object(kPages * kPage);
  const auto mapping = Map(object, kPages * kPage);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      std::vector<std::byte> copy(kPages * kPage);
      while (!mapping->lost()) std::memcpy(copy.data(), mapping->data(), copy.size());
    });
  }
  object.Resize(0);
  for (std::thread& thread : threads) thread.join();
}

TEST(SharedMappingTest, MoreThanThereIsRoomForIsRefused) {
  const SharedObject object(kPage);
  for (const size_t size : {size_t{1} << 60, ~size_t{0}, ~size_t{0} - kPage}) {
    EXPECT_FALSE(SharedMapping::Map(object.fd(), size).ok()) << size;
  }
}

TEST(SharedMappingDeathTest, AnErrorElsewhereIsStillOne) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        SharedObject object(kPage);
        const auto mapping = Map(object, kPage);
        object.Resize(0);
        const volatile std::byte* unguarded = object.data();
        (void)unguarded[0];
      },
      "");
}

}  // namespace
}  // namespace gdn::test
