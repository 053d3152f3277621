#include "client/cpp/step_call.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn::client {
namespace {

using ::testing::ElementsAre;

std::string Join(const std::vector<grpc::Slice>& slices) {
  std::string bytes;
  for (const grpc::Slice& s : slices)
    bytes.append(reinterpret_cast<const char*>(s.begin()), s.size());
  return bytes;
}

std::vector<grpc::Slice> Slices(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  return slices;
}

// `message` in pieces of `piece` bytes.
grpc::ByteBuffer Cut(const std::string& message, size_t piece) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < message.size(); at += piece) {
    slices.emplace_back(message.substr(at, piece));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

v1::DecodeResponse Answer() {
  v1::DecodeResponse answer;
  answer.add_slots(-1);
  answer.add_slots(4);
  answer.add_epochs(0);
  answer.add_epochs(~0ull);
  answer.set_replayed_rows(300);
  answer.set_output(std::string(500, 'o') + "end");
  return answer;
}

TEST(EncodeStep, IsTheMessageAndSharesTheTensor) {
  v1::DecodeRequest request;
  request.set_layer(3);
  request.mutable_batch()->add_slots(1);
  const std::string tensor(1000, 't');
  const grpc::Slice input(tensor.data(), tensor.size(), grpc::Slice::STATIC_SLICE);
  const std::vector<grpc::Slice> slices = Slices(EncodeStep(request.SerializeAsString(), input));
  EXPECT_EQ(slices.back().begin(), reinterpret_cast<const uint8_t*>(tensor.data()));
  v1::DecodeRequest parsed;
  ASSERT_TRUE(parsed.ParseFromString(Join(slices)));
  EXPECT_EQ(parsed.input(), tensor);
  parsed.clear_input();
  EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
}

TEST(EncodeStep, WritesNoEmptyTensor) {
  EXPECT_EQ(Join(Slices(EncodeStep("header", grpc::Slice()))), "header");
  EXPECT_EQ(Join(Slices(EncodeStep("", grpc::Slice()))), "");
}

TEST(DecodeAnswer, ReadsAnyCut) {
  const std::string message = Answer().SerializeAsString();
  for (size_t piece : {1, 2, 3, 17, 64, 10000}) {
    grpc::ByteBuffer buffer = Cut(message, piece);
    StepAnswer answer;
    ASSERT_TRUE(DecodeAnswer(&buffer, &answer)) << piece;
    EXPECT_THAT(answer.header.slots(), ElementsAre(-1, 4));
    EXPECT_THAT(answer.header.epochs(), ElementsAre(0, ~0ull));
    EXPECT_EQ(answer.header.replayed_rows(), 300u);
    EXPECT_EQ(answer.header.output(), "");
    EXPECT_EQ(Join(answer.output), Answer().output());
    EXPECT_EQ(answer.output_bytes(), 503u);
  }
}

TEST(DecodeAnswer, SkipsUnknownFields) {
  const std::string unknown(
      "\x20\1\x29 8 bytes\x32\3xyz\x3d"
      "4444",
      21);
  grpc::ByteBuffer buffer = Cut(unknown + Answer().SerializeAsString(), 5);
  StepAnswer answer;
  ASSERT_TRUE(DecodeAnswer(&buffer, &answer));
  EXPECT_THAT(answer.header.slots(), ElementsAre(-1, 4));
  EXPECT_EQ(answer.output_bytes(), 503u);
}

TEST(DecodeAnswer, TakesFieldsInAnotherOrder) {
  grpc::ByteBuffer buffer = Cut(Answer().SerializeAsString() + "\x18\7", 1000);
  StepAnswer answer;
  ASSERT_TRUE(DecodeAnswer(&buffer, &answer));
  EXPECT_EQ(answer.header.replayed_rows(), 7u);
  EXPECT_EQ(Join(answer.output), Answer().output());
  EXPECT_EQ(answer.header.output(), "");
}

TEST(DecodeAnswer, TakesAnEmptyMessage) {
  const grpc::Slice empty;
  grpc::ByteBuffer buffer(&empty, 1);
  StepAnswer answer;
  ASSERT_TRUE(DecodeAnswer(&buffer, &answer));
  EXPECT_EQ(answer.output_bytes(), 0u);
}

TEST(DecodeAnswer, RefusesATruncatedMessage) {
  const std::string message = Answer().SerializeAsString();
  for (size_t size : {size_t{1}, size_t{5}, size_t{40}, message.size() - 1}) {
    grpc::ByteBuffer buffer = Cut(message.substr(0, size), 7);
    StepAnswer answer;
    EXPECT_FALSE(DecodeAnswer(&buffer, &answer)) << size;
  }
}

}  // namespace
}  // namespace gdn::client
