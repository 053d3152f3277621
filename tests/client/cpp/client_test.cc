#include "client/cpp/client.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_server.h"

namespace gdn::client {
namespace {

using ::testing::ElementsAre;

class ClientTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Client client_{Connect(server_.target())};
};

std::string Output(const StepAnswer& answer) {
  std::string output(answer.output_bytes(), 0);
  answer.CopyOutput(output.data());
  return output;
}

TEST_F(ClientTest, TellsTheServersFacts) {
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(client_.Info(&info).ok());
  EXPECT_EQ(info.instance_id(), "fake-1");
  EXPECT_THAT(info.layers(), ElementsAre(0, 4));
}

TEST_F(ClientTest, GetsASequence) {
  v1::Sequence sequence;
  ASSERT_TRUE(client_.Get("request-3", &sequence).ok());
  EXPECT_EQ(sequence.slot(), 3);
}

TEST_F(ClientTest, AFailureIsTypedAndChangesNoAnswer) {
  v1::Sequence sequence;
  sequence.set_slot(55);
  const Error error = client_.Get("gone", &sequence);
  EXPECT_EQ(error.code, grpc::NOT_FOUND);
  EXPECT_EQ(error.reason, v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  EXPECT_EQ(error.metadata.at("instance_id"), "fake-1");
  EXPECT_EQ(sequence.slot(), 55);
}

TEST_F(ClientTest, ListsEveryPage) {
  std::vector<v1::Sequence> sequences;
  ASSERT_TRUE(client_.List(&sequences).ok());
  ASSERT_EQ(sequences.size(), 5u);
  for (int slot = 0; slot < 5; ++slot) EXPECT_EQ(sequences[slot].slot(), slot);
}

TEST_F(ClientTest, ReleasesAndRenews) {
  v1::ReleaseSequencesRequest release;
  release.add_request_ids("a");
  release.add_request_ids("b");
  ASSERT_TRUE(client_.Release(release).ok());
  EXPECT_THAT(server_.sequences().released, ElementsAre("a", "b"));

  v1::RenewSequencesRequest renew;
  renew.add_request_ids("c");
  v1::RenewSequencesResponse renewed;
  ASSERT_TRUE(client_.Renew(renew, &renewed).ok());
  EXPECT_THAT(renewed.missing_request_ids(), ElementsAre("c"));
}

TEST_F(ClientTest, ChecksHealth) {
  Health health = Health::kUnknown;
  ASSERT_TRUE(client_.CheckHealth("", &health).ok());
  EXPECT_EQ(health, Health::kServing);
  server_.SetServing(false);
  ASSERT_TRUE(client_.CheckHealth("", &health).ok());
  EXPECT_EQ(health, Health::kNotServing);
  EXPECT_EQ(client_.CheckHealth("no.such.Service", &health).code, grpc::NOT_FOUND);
}

TEST_F(ClientTest, StepsCarryTheTensorBesideTheMessage) {
  v1::PrefillRequest prefill;
  prefill.set_layer(4);
  prefill.mutable_batch()->add_request_ids("a");
  prefill.mutable_batch()->add_request_ids("b");
  std::string tensor(3 << 20, 'x');  // many frames
  tensor.front() = 'f';
  tensor.back() = 'b';
  const grpc::Slice input(tensor.data(), tensor.size(), grpc::Slice::STATIC_SLICE);

  StepAnswer answer;
  Error error = client_.Prefill(prefill, input, &answer);
  ASSERT_TRUE(error.ok()) << ToString(error);
  EXPECT_THAT(answer.header.slots(), ElementsAre(0, 1));
  EXPECT_THAT(answer.header.epochs(), ElementsAre(1000, 1001));
  EXPECT_EQ(answer.header.replayed_rows(), 4u);
  EXPECT_TRUE(Output(answer) == tensor);

  error = client_.Decode({}, grpc::Slice("abc"), &answer);
  ASSERT_TRUE(error.ok()) << ToString(error);
  EXPECT_EQ(answer.header.slots_size(), 0);
  EXPECT_EQ(Output(answer), "cba");
}

TEST_F(ClientTest, AStepsFailureNamesItsRows) {
  v1::DecodeRequest decode;
  decode.set_layer(99);
  StepAnswer answer;
  const Error error = client_.Decode(decode, grpc::Slice("abc"), &answer);
  EXPECT_EQ(error.reason, v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  ASSERT_EQ(error.rows.size(), 1u);
  EXPECT_THAT(error.rows[0].rows(), ElementsAre(1, 3));
}

TEST(Client, AnAbsentServerIsUnavailable) {
  Client client(Connect("unix:/nonexistent/socket"));
  v1::GetServerInfoResponse info;
  const Error error = client.Info(&info);
  EXPECT_EQ(error.code, grpc::UNAVAILABLE);
  EXPECT_EQ(error.reason, v1::ERROR_REASON_UNSPECIFIED);
}

}  // namespace
}  // namespace gdn::client
