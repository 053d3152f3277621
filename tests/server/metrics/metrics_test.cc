// What is counted while a server answers.
#include "server/metrics/metrics.h"

#include <string>

#include "tests/server/service/service_harness.h"

namespace gdn::test {
namespace {

class MetricsTest : public ServiceHarness {
 protected:
  uint64_t Ended(Method method, grpc::StatusCode code) const {
    return metrics_.calls[static_cast<size_t>(method)].ended[code].value();
  }
  uint64_t Errors(v1::ErrorReason reason) const { return metrics_.errors[reason].value(); }
  static uint64_t Count(const Histogram& histogram) {
    uint64_t count = 0;
    for (size_t i = 0; i <= histogram.bounds().size(); ++i) count += histogram.count(i);
    return count;
  }
  StepNumbers& Of(StepKind kind) { return metrics_.steps[static_cast<size_t>(kind)]; }

  Metrics& metrics_ = *readiness_.metrics;
};

TEST_F(MetricsTest, ACallIsCountedByItsCodeAndTimed) {
  Host();
  EXPECT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  EXPECT_FALSE(Decode(ById({"unknown"}, {1})).ok());
  EXPECT_EQ(Ended(Method::kDecode, grpc::OK), 1u);
  EXPECT_EQ(Ended(Method::kDecode, grpc::NOT_FOUND), 1u);
  EXPECT_EQ(Count(metrics_.of(Method::kDecode).duration), 2u);
  EXPECT_GT(metrics_.of(Method::kDecode).duration.sum(), 0u);
  EXPECT_EQ(Errors(v1::ERROR_REASON_SEQUENCE_NOT_FOUND), 1u);
}

TEST_F(MetricsTest, ControlCallsAreCounted) {
  Host();
  grpc::ClientContext info, list, get;
  v1::GetServerInfoResponse facts;
  v1::ListSequencesResponse page;
  v1::GetSequenceResponse sequence;
  EXPECT_TRUE(gdn_->GetServerInfo(&info, {}, &facts).ok());
  EXPECT_TRUE(sequences_->ListSequences(&list, {}, &page).ok());
  EXPECT_FALSE(sequences_->GetSequence(&get, {}, &sequence).ok());
  EXPECT_EQ(Ended(Method::kGetServerInfo, grpc::OK), 1u);
  EXPECT_EQ(Ended(Method::kListSequences, grpc::OK), 1u);
  EXPECT_EQ(Ended(Method::kGetSequence, grpc::NOT_FOUND), 1u);
}

TEST_F(MetricsTest, WhatNeverBecomesAStepIsAnErrorToo) {
  EXPECT_FALSE(Decode(ById({"a"}, {1}, true)).ok());
  EXPECT_EQ(Errors(v1::ERROR_REASON_NOT_READY), 1u);
  Host();
  EXPECT_FALSE(Raw("/gdn.v1.GdnService/Decode", HostileMessages()[0]).ok());
  EXPECT_EQ(Errors(v1::ERROR_REASON_MALFORMED_MESSAGE), 1u);
  EXPECT_FALSE(Decode(ById({""}, {}, true)).ok());
  EXPECT_EQ(Ended(Method::kDecode, grpc::INVALID_ARGUMENT), 2u);
  EXPECT_EQ(Count(Of(StepKind::kDecode).duration), 0u);
}

TEST_F(MetricsTest, BytesAreThoseOfTheMessages) {
  Host();
  const v1::DecodeRequest request = ById({"a"}, {1}, true);
  v1::DecodeResponse response;
  EXPECT_TRUE(Decode(request, &response).ok());
  EXPECT_EQ(metrics_.of(Method::kDecode).received_bytes.value(), request.ByteSizeLong());
  EXPECT_EQ(metrics_.of(Method::kDecode).sent_bytes.value(), response.ByteSizeLong());
}

TEST_F(MetricsTest, AStepsQueueBatchAndDeviceAreOfItsKind) {
  Host();
  grpc::ClientContext context;
  v1::PrefillRequest prefill;
  ASSERT_TRUE(prefill.ParseFromString(ById({"a", "b"}, {1, 2}, true).SerializeAsString()));
  v1::PrefillResponse response;
  EXPECT_TRUE(gdn_->Prefill(&context, prefill, &response).ok());
  StepNumbers& numbers = Of(StepKind::kPrefill);
  EXPECT_EQ(Count(numbers.queued), 1u);
  EXPECT_EQ(Count(numbers.duration), 1u);
  EXPECT_EQ(Count(numbers.device), 1u);
  EXPECT_EQ(numbers.batch_rows.sum(), 2u);
  EXPECT_EQ(numbers.batch_tokens.sum(), 2u);
  EXPECT_GE(numbers.duration.sum(), numbers.queued.sum());
  EXPECT_EQ(Count(Of(StepKind::kDecode).device), 0u);
}

TEST_F(MetricsTest, ReplayedRowsAreCounted) {
  Host();
  v1::DecodeRequest request = ById({"a"}, {1}, true);
  request.mutable_batch()->set_step_id(7);
  EXPECT_TRUE(Decode(request).ok());
  EXPECT_TRUE(Decode(request).ok());
  EXPECT_EQ(metrics_.replayed_rows.value(), 1u);
}

TEST_F(MetricsTest, AStreamIsCountedByItsMessagesAndItsEnd) {
  Host();
  grpc::ClientContext context;
  const auto stream = gdn_->Stream(&context);
  v1::StreamRequest good, bad;
  *good.mutable_decode() = ById({"a"}, {1}, true);
  *bad.mutable_decode() = ById({"unknown"}, {1});
  v1::StreamResponse answer;
  uint64_t sent = 0;
  for (const v1::StreamRequest* request : {&good, &bad}) {
    ASSERT_TRUE(stream->Write(*request) && stream->Read(&answer));
    sent += answer.ByteSizeLong();
  }
  EXPECT_EQ(metrics_.open_streams.value(), 1u);
  EXPECT_EQ(Errors(v1::ERROR_REASON_SEQUENCE_NOT_FOUND), 1u);
  EXPECT_EQ(metrics_.of(Method::kStream).received_bytes.value(),
            good.ByteSizeLong() + bad.ByteSizeLong());
  EXPECT_EQ(metrics_.of(Method::kStream).sent_bytes.value(), sent);
  EXPECT_EQ(Count(Of(StepKind::kDecode).duration), 2u);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(metrics_.open_streams.value(), 0u);
  EXPECT_EQ(Ended(Method::kStream, grpc::OK), 1u);
}

TEST_F(MetricsTest, AStreamThatIsBrokenOffSaysWhy) {
  Host();
  grpc::ClientContext context;
  const auto stream = gdn_->Stream(&context);
  ASSERT_TRUE(stream->Write({}));
  EXPECT_EQ(stream->Finish().error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(Ended(Method::kStream, grpc::INVALID_ARGUMENT), 1u);
  EXPECT_EQ(Errors(v1::ERROR_REASON_MALFORMED_BATCH), 1u);
}

TEST_F(MetricsTest, ServingIsAsHealthSays) {
  EXPECT_FALSE(metrics_.serving);
  Host();
  EXPECT_TRUE(metrics_.serving);
  server_->SetServing(false);
  EXPECT_FALSE(metrics_.serving);
}

}  // namespace
}  // namespace gdn::test
