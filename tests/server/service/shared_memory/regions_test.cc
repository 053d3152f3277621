#include "server/service/shared_memory/regions.h"

#include "gtest/gtest.h"
#include "tests/testing/fake_device_memory.h"
#include "tests/testing/shared_object.h"

namespace gdn::test {
namespace {

constexpr size_t kPage = 4096;

class RegionsTest : public ::testing::Test {
 protected:
  static v1::RegisterSharedMemoryRequest Posix(const std::string& region, const std::string& name,
                                               uint64_t size) {
    v1::RegisterSharedMemoryRequest request;
    request.set_region(region);
    request.set_posix_name(name);
    request.set_byte_size(size);
    return request;
  }
  static v1::RegisterSharedMemoryRequest Ipc(const std::string& handle, uint64_t size) {
    v1::RegisterSharedMemoryRequest request;
    request.set_region("ipc");
    request.set_cuda_ipc_handle(handle);
    request.set_byte_size(size);
    return request;
  }
  std::string Register(const v1::RegisterSharedMemoryRequest& request) {
    return v1::ErrorReason_Name(regions_.Register(request).reason).substr(13);
  }

  FakeDeviceMemoryOpener opener_;
  Regions regions_{"gdn", &opener_};
};

TEST_F(RegionsTest, IsThereUntilItIsUnregistered) {
  const SharedObject object(kPage);
  EXPECT_EQ(Register(Posix("r", object.name(), kPage)), "UNSPECIFIED");
  const auto region = regions_.Find("r");
  ASSERT_NE(region, nullptr);
  object.data()[3] = std::byte{4};
  EXPECT_EQ(region->host()[3], std::byte{4});
  EXPECT_EQ(region->size(), kPage);
  EXPECT_EQ(Register(Posix("r", object.name(), kPage)), "ID_IN_USE");
  EXPECT_EQ(regions_.Find("other"), nullptr);
}

TEST_F(RegionsTest, AnUnregisteredOneStaysWithWhoHasIt) {
  const SharedObject object(kPage);
  Register(Posix("r", object.name(), kPage));
  auto region = regions_.Find("r");
  bool done = false;
  EXPECT_TRUE(regions_.Unregister("r", [&] { done = true; }).ok());
  EXPECT_EQ(regions_.Find("r"), nullptr);
  EXPECT_FALSE(done);
  region->host()[0] = std::byte{1};
  EXPECT_EQ(Register(Posix("r", object.name(), kPage)), "UNSPECIFIED");  // the name is free
  region.reset();
  EXPECT_TRUE(done);
  EXPECT_NE(regions_.Find("r"), nullptr);
}

TEST_F(RegionsTest, WhoeverUnregistersItOnceMoreWaitsAsWell) {
  const SharedObject object(kPage);
  Register(Posix("r", object.name(), kPage));
  auto region = regions_.Find("r");
  int done = 0;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(regions_.Unregister("r", [&] { ++done; }).ok());
  EXPECT_EQ(done, 0);
  region.reset();
  EXPECT_EQ(done, 2);
  EXPECT_TRUE(regions_.Unregister("r", [&] { ++done; }).ok());
  EXPECT_EQ(done, 3);
}

TEST_F(RegionsTest, OneThatIsNotThereIsGoneAtOnce) {
  bool done = false;
  EXPECT_TRUE(regions_.Unregister("r", [&] { done = true; }).ok());
  EXPECT_TRUE(done);
}

TEST_F(RegionsTest, RefusesNames) {
  const SharedObject object(kPage);
  for (const std::string& id : {std::string(), std::string(129, 'a'), std::string("a b")}) {
    EXPECT_EQ(Register(Posix(id, object.name(), kPage)), "MALFORMED_ID") << id;
    EXPECT_EQ(regions_.Unregister(id, [] {}).reason, v1::ERROR_REASON_MALFORMED_ID);
  }
  const SharedObject foreign(kPage, true, "other");
  for (const std::string& name :
       {foreign.name(), std::string(), std::string("/"), std::string("gdn/x"),
        std::string("/gdn/../x"), std::string("//gdn"), std::string("/etc/gdn"),
        std::string("gdn\0x", 5), std::string("GDN")}) {
    EXPECT_EQ(Register(Posix("r", name, kPage)), "REGION_DENIED") << name;
  }
  EXPECT_EQ(Register(Posix("r", "/gdn-nobody-made-it", kPage)), "REGION_NOT_FOUND");
  EXPECT_EQ(Register(Posix("r", "/gdn" + std::string(300, 'x'), kPage)), "UNSUPPORTED");
  EXPECT_EQ(Register(Posix("r", object.name().substr(1), kPage)), "UNSPECIFIED");  // no slash
}

TEST_F(RegionsTest, AnyPrefixStaysWithinTheFolder) {
  Regions all("", nullptr);
  for (const char* name : {"", "/", ".", "..", "/..", "a/b", "../etc/passwd"}) {
    EXPECT_EQ(all.Register(Posix("r", name, kPage)).reason, v1::ERROR_REASON_REGION_DENIED) << name;
  }
}

TEST_F(RegionsTest, RefusesSizes) {
  const SharedObject object(kPage + 10);
  for (const uint64_t size : {uint64_t{0}, uint64_t{kPage + 11}, uint64_t{1} << 62, ~uint64_t{0}}) {
    const Fault fault = regions_.Register(Posix("r", object.name(), size));
    EXPECT_EQ(fault.reason, v1::ERROR_REASON_INPUT_SIZE_MISMATCH) << size;
    EXPECT_EQ(fault.metadata.at("actual_bytes"), std::to_string(kPage + 10));
  }
  EXPECT_EQ(Register(Posix("r", object.name(), kPage + 10)), "UNSPECIFIED");
}

// Larger than any address space.
TEST_F(RegionsTest, RefusesAHugeObject) {
  SharedObject object(kPage);
  object.Resize(size_t{1} << 62);
  EXPECT_EQ(Register(Posix("r", object.name(), uint64_t{1} << 62)), "UNSUPPORTED");
  object.Resize(kPage);
}

TEST_F(RegionsTest, PinsWhatIsThere) {
  const SharedObject whole(2 * kPage);
  const SharedObject sparse(2 * kPage, /*filled=*/false);
  EXPECT_EQ(Register(Posix("whole", whole.name(), 2 * kPage)), "UNSPECIFIED");
  EXPECT_EQ(Register(Posix("sparse", sparse.name(), 2 * kPage)), "UNSPECIFIED");
  EXPECT_NE(regions_.Find("whole")->device(), nullptr);
  EXPECT_EQ(regions_.Find("sparse")->device(), nullptr);
  opener_.refuses = true;
  EXPECT_EQ(Register(Posix("refused", whole.name(), 2 * kPage)), "UNSPECIFIED");
  EXPECT_EQ(regions_.Find("refused")->device(), nullptr);
  EXPECT_EQ(opener_.open, 1);
  EXPECT_TRUE(regions_.Unregister("whole", [&] { EXPECT_EQ(opener_.open, 0); }).ok());
}

TEST_F(RegionsTest, KnowsWhatItsOwnerHasLeft) {
  SharedObject object(3 * kPage);
  Register(Posix("r", object.name(), 2 * kPage));
  const auto region = regions_.Find("r");
  EXPECT_EQ(region->present(), 2 * kPage);
  object.Resize(100);
  EXPECT_EQ(region->present(), 100u);
  object.Resize(2 * kPage);
  EXPECT_EQ(region->present(), 2 * kPage);
  object.Resize(0);
  region->host()[kPage] = std::byte{1};
  object.Resize(2 * kPage);
  EXPECT_EQ(region->present(), 0u);  // the object is there again, but no longer mapped
}

TEST_F(RegionsTest, OpensDeviceMemory) {
  opener_.allocations["handle"].resize(kPage);
  EXPECT_EQ(Register(Ipc("handle", kPage + 1)), "INPUT_SIZE_MISMATCH");
  EXPECT_EQ(Register(Ipc("handle", 0)), "INPUT_SIZE_MISMATCH");
  EXPECT_EQ(Register(Ipc("other", kPage)), "UNSUPPORTED");
  EXPECT_EQ(Register(Ipc("handle", kPage)), "UNSPECIFIED");
  EXPECT_EQ(regions_.Find("ipc")->host(), nullptr);
  EXPECT_EQ(regions_.Find("ipc")->present(), kPage);
}

TEST_F(RegionsTest, WithoutADeviceThereIsNone) {
  Regions plain("gdn", nullptr);
  EXPECT_EQ(plain.Register(Ipc("handle", kPage)).reason, v1::ERROR_REASON_UNSUPPORTED);
  v1::RegisterSharedMemoryRequest none;
  none.set_region("r");
  EXPECT_EQ(plain.Register(none).reason, v1::ERROR_REASON_UNSUPPORTED);
}

}  // namespace
}  // namespace gdn::test
