#include "server/wire/codec.h"

#include <google/protobuf/stubs/logging.h>

#include "gdn/v1/gdn_service.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fuzz/codec_compare.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Bytes of a message; the size is the literal's, so that zeros may stand in it.
template <size_t N>
std::string Bytes(const char (&literal)[N]) {
  return std::string(literal, N - 1);
}

std::string Field(char tag, const std::string& value) {
  return std::string{tag, static_cast<char>(value.size())} + value;
}

std::string InBatch(const std::string& fields) { return Field('\x12', fields); }

StepRequest Parse(const std::string& message) {
  const std::string_view piece = message;
  StepRequest request;
  EXPECT_TRUE(ParseStepRequest({&piece, 1}, &request));
  request.input.clear();  // points into `message`
  return request;
}

// That our verdict is `accepted`, and that the generated parser agrees, whole and byte by byte.
void ExpectVerdict(const std::string& message, bool accepted) {
  const std::string_view piece = message;
  StepRequest request;
  EXPECT_EQ(ParseStepRequest({&piece, 1}, &request), accepted);
  EXPECT_EQ(CompareDecodeRequest({&piece, 1}), "");
  EXPECT_EQ(ComparePrefillRequest({&piece, 1}), "");
  EXPECT_EQ(CompareDecodeRequest(Slice(message, 1, [](size_t n) { return n - 1; })), "");
}

class CodecTest : public ::testing::Test {
 protected:
  // Refused UTF-8 is logged by the generated parser.
  void SetUp() override { google::protobuf::SetLogHandler(nullptr); }
};

TEST_F(CodecTest, ReadsEveryField) {
  v1::PrefillRequest message;
  message.set_layer(7);
  v1::Batch& batch = *message.mutable_batch();
  batch.set_data_type(v1::DATA_TYPE_FP16);
  batch.set_input_layout(v1::INPUT_LAYOUT_QKV_Z_B_A);
  batch.set_step_id(~0ull);
  batch.set_create(true);
  batch.set_release_after(true);
  batch.set_speculative(true);
  batch.set_discard_output(true);
  for (const char* id : {"a", "", "c"}) batch.add_request_ids(id);
  for (int i = 0; i < 3; ++i) {
    batch.add_slots(i - 1);
    batch.add_epochs(1ull << 63 | i);
    batch.add_positions(10 + i);
    batch.add_token_counts(20 + i);
  }
  message.mutable_shared_memory()->set_region("r");
  message.set_synthetic_seed(99);
  message.set_input("tensor");
  const std::string bytes = message.SerializeAsString();
  const std::string_view piece = bytes;

  StepRequest r;
  ASSERT_TRUE(ParseStepRequest({&piece, 1}, &r));
  EXPECT_EQ(r.layer, 7u);
  EXPECT_EQ(r.data_type, v1::DATA_TYPE_FP16);
  EXPECT_EQ(r.input_layout, v1::INPUT_LAYOUT_QKV_Z_B_A);
  EXPECT_EQ(r.step_id, ~0ull);
  EXPECT_TRUE(r.create && r.release_after && r.speculative && r.discard_output);
  EXPECT_TRUE(r.shared_memory.has_value());
  EXPECT_EQ(r.synthetic_seed, 99u);
  EXPECT_THAT(r.request_ids, ElementsAre("a", "", "c"));
  EXPECT_THAT(r.slots, ElementsAre(-1, 0, 1));
  EXPECT_THAT(r.epochs, ElementsAre(1ull << 63, 1ull << 63 | 1, 1ull << 63 | 2));
  EXPECT_THAT(r.positions, ElementsAre(10, 11, 12));
  EXPECT_THAT(r.token_counts, ElementsAre(20, 21, 22));
  EXPECT_THAT(r.input, ElementsAre("tensor"));
}

TEST_F(CodecTest, RecordsTheTensorWithoutCopyingIt) {
  v1::DecodeRequest message;
  message.set_input(std::string(1000, 'x'));
  const std::string bytes = message.SerializeAsString();
  const std::string_view whole = bytes;
  const std::string_view pieces[] = {whole.substr(0, 2), whole.substr(2, 98), "",
                                     whole.substr(100)};
  StepRequest request;
  ASSERT_TRUE(ParseStepRequest(pieces, &request));
  ASSERT_EQ(request.input.size(), 2u);
  EXPECT_EQ(request.input[0].data(), bytes.data() + 3);
  EXPECT_EQ(request.input[1].data(), bytes.data() + 100);
  EXPECT_EQ(request.input_bytes(), 1000u);
}

TEST_F(CodecTest, TakesTheEmptyMessage) {
  StepRequest request;
  request.layer = 3;
  EXPECT_TRUE(ParseStepRequest({}, &request));
  EXPECT_EQ(request.layer, 0u);
  StreamStep step;
  EXPECT_TRUE(ParseStreamRequest({}, &step));
  EXPECT_FALSE(step.has_step);
}

TEST_F(CodecTest, TakesPackedUnpackedAndSplitArrays) {
  const std::string packed = Field('\x4a', Bytes("\1\0\0\0\2\0\0\0"));
  const std::string single = Bytes("\x4d\3\0\0\0");
  const std::string message = InBatch(packed + single) + InBatch(packed);
  EXPECT_THAT(Parse(message).slots, ElementsAre(1, 2, 3, 1, 2));
  ExpectVerdict(message, true);
}

TEST_F(CodecTest, RefusesAnArrayThatEndsWithinAnElement) {
  ExpectVerdict(InBatch(Field('\x4a', Bytes("\1\0\0\0\2\0"))), false);
  ExpectVerdict(InBatch(Field('\x52', Bytes("\1\0\0\0"))), false);
}

TEST_F(CodecTest, LastScalarWinsAndLastInputReplaces) {
  const std::string message = Bytes("\x08\1\x7a\2ab\x08\2\x7a\0");
  EXPECT_EQ(Parse(message).layer, 2u);
  EXPECT_EQ(Parse(message).input_bytes(), 0u);
  ExpectVerdict(message, true);
}

TEST_F(CodecTest, TruncatesVarintsAsTheGeneratedParserDoes) {
  ExpectVerdict(Bytes("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), true);     // layer
  ExpectVerdict(Bytes("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"), false);  // 11 bytes
  ExpectVerdict(InBatch(Bytes("\x08\xff\xff\xff\xff\x7f")), true);                // an enum
  ExpectVerdict(InBatch(Bytes("\x20\x80\x80\x80\x80\x10")), true);                // a bool, 2^32
  EXPECT_TRUE(Parse(InBatch(Bytes("\x20\x80\x80\x80\x80\x10"))).create);
}

TEST_F(CodecTest, SkipsUnknownFieldsAndWrongTypes) {
  ExpectVerdict(Bytes("\x0d\1\0\0\0"), true);           // layer as fixed32
  ExpectVerdict(Bytes("\x10\1"), true);                 // batch as a varint
  ExpectVerdict(Bytes("\xa0\x06\1\xa2\x06\1x"), true);  // field 100
  ExpectVerdict(InBatch(Field('\x0a', "xyz")), true);   // data_type as bytes
  EXPECT_THAT(Parse(InBatch(Bytes("\x48\1"))).slots, IsEmpty());
}

TEST_F(CodecTest, RefusesWhatIsNoField) {
  ExpectVerdict(Bytes("\0"), false);                        // field 0
  ExpectVerdict(Bytes("\x02\0"), false);                    // field 0 with a length
  ExpectVerdict(Bytes("\x0e\0"), false);                    // type 6
  ExpectVerdict(Bytes("\x0f\0"), false);                    // type 7
  ExpectVerdict(Bytes("\x0c"), false);                      // an end without its start
  ExpectVerdict(Bytes("\x88\x80\x80\x80\x80\0\1"), false);  // a tag of 6 bytes
  ExpectVerdict(Bytes("\x88\x80\x80\x80\0\1"), true);       // of 5
}

TEST_F(CodecTest, MatchesGroups) {
  ExpectVerdict(Bytes("\x2b\x08\1\x33\x34\x2c"), true);
  ExpectVerdict(Bytes("\x2b\x08\1\x34"), false);          // another field's end
  ExpectVerdict(Bytes("\x2b\x08\1"), false);              // no end
  ExpectVerdict(InBatch(Bytes("\x6b")) + "\x6c", false);  // an end outside the message
}

TEST_F(CodecTest, LimitsTheDepthOfGroups) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '\x2b') + std::string(depth, '\x2c');
  };
  ExpectVerdict(nested(100), true);
  ExpectVerdict(nested(101), false);
  const auto in_batch = [](size_t depth) {
    const std::string group = std::string(depth, '\x6b') + std::string(depth, '\x6c');
    return Bytes("\x12") + static_cast<char>(group.size() | 0x80) + '\1' + group;
  };
  ExpectVerdict(in_batch(99), true);
  ExpectVerdict(in_batch(100), false);
}

TEST_F(CodecTest, RefusesLengthsBeyondTheMessage) {
  ExpectVerdict(Bytes("\x7a\5abcd"), false);
  ExpectVerdict(Bytes("\x12\5\x08\1") + Bytes("\x08\1"), false);
  ExpectVerdict(Bytes("\x12\2\x4a\4\1\0\0\0"), false);      // an array beyond its batch
  ExpectVerdict(Bytes("\x7a\xff\xff\xff\xff\x07"), false);  // 2 GiB - 1
  ExpectVerdict(Bytes("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), false);
  ExpectVerdict(Bytes("\x12\x08\x4a\xff\xff\xff\xff\x07\0\0"), false);
}

TEST_F(CodecTest, ChecksUtf8) {
  for (const char* valid : {"a", "\xc3\xa9", "\xe2\x82\xac", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
    ExpectVerdict(InBatch(Field('\x42', valid)), true);
    ExpectVerdict(Field('\x1a', Field('\x0a', valid)), true);
  }
  for (const char* invalid :
       {"\x80", "\xff", "\xc1\xbf", "\xc3", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "eight ascii\xe2\x28\xa1"}) {
    ExpectVerdict(InBatch(Field('\x42', invalid)), false);
    ExpectVerdict(Field('\x1a', Field('\x0a', invalid)), false);
  }
}

TEST_F(CodecTest, ChecksSharedMemory) {
  EXPECT_TRUE(Parse(Bytes("\x1a\0")).shared_memory.has_value());
  ExpectVerdict(Bytes("\x1a\2\x10\1"), true);
  ExpectVerdict(Bytes("\x1a\1\x10"), false);
}

// 2 bytes on the wire, 32 in memory: what no server takes is not kept.
TEST_F(CodecTest, KeepsABoundedNumberOfIds) {
  std::string ids;
  for (size_t i = 0; i < kMaxRequestIds + 10; ++i) ids += Bytes("\x42\0");
  v1::Batch batch;
  ASSERT_TRUE(batch.ParseFromString(ids));
  v1::DecodeRequest message;
  *message.mutable_batch() = batch;
  EXPECT_EQ(Parse(message.SerializeAsString()).request_ids.size(), kMaxRequestIds);
}

TEST_F(CodecTest, TakesWhatIsLessThanTwoGiB) {
  // The same MiB over and over: an input of 2047 MiB, whose bytes are never looked at.
  const std::string mib(1 << 20, 'x');
  std::vector<std::string_view> pieces = {"\x7a\x80\x80\xc0\xff\7"};
  pieces.resize(1 + 2047, mib);
  StepRequest request;
  ASSERT_TRUE(ParseStepRequest(pieces, &request));
  EXPECT_EQ(request.input_bytes(), 2047u << 20);
  pieces.push_back(mib);
  EXPECT_FALSE(ParseStepRequest(pieces, &request));
}

TEST_F(CodecTest, AMemberOfAStreamReplacesAnotherAndMergesIntoItself) {
  v1::StreamRequest first, second, third;
  first.set_tag(1);
  first.mutable_prefill()->set_layer(5);
  second.mutable_decode()->set_layer(6);
  second.mutable_decode()->mutable_batch()->add_slots(1);
  third.set_tag(3);
  third.mutable_decode()->mutable_batch()->add_slots(2);
  const std::string bytes =
      first.SerializeAsString() + second.SerializeAsString() + third.SerializeAsString();
  const std::string_view piece = bytes;

  StreamStep step;
  ASSERT_TRUE(ParseStreamRequest({&piece, 1}, &step));
  EXPECT_EQ(step.tag, 3u);
  EXPECT_TRUE(step.has_step);
  EXPECT_EQ(step.kind, StepKind::kDecode);
  EXPECT_EQ(step.request.layer, 6u);
  EXPECT_THAT(step.request.slots, ElementsAre(1, 2));
  EXPECT_EQ(CompareStreamRequest({&piece, 1}), "");
}

TEST_F(CodecTest, AnEmptyAnswerIsNoBytes) {
  EXPECT_EQ(EncodeAnswerHeader({}), "");
  // On a stream it still says which step was done.
  EXPECT_EQ(EncodeStreamAnswerHeader(0, StepKind::kPrefill, {}), Bytes("\x72\0"));
}

TEST_F(CodecTest, AStatusOnAStreamCarriesItsTag) {
  google::rpc::Status status;
  status.set_code(5);
  status.set_message("gone");
  v1::StreamResponse response;
  ASSERT_TRUE(response.ParseFromString(EncodeStreamStatus(77, status)));
  EXPECT_EQ(response.tag(), 77u);
  EXPECT_EQ(response.status().SerializeAsString(), status.SerializeAsString());
  EXPECT_EQ(response.step_case(), v1::StreamResponse::STEP_NOT_SET);
}

}  // namespace
}  // namespace gdn
