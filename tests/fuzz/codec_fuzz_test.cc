// The hand parser against the generated one, on random messages in random pieces: both accept the
// same bytes and read the same from them. Seeds are fixed, so that a failure comes again.
#include <google/protobuf/stubs/logging.h>

#include <chrono>

#include "gdn/v1/gdn_service.pb.h"
#include "gtest/gtest.h"
#include "server/wire/codec.h"
#include "tests/fuzz/codec_compare.h"
#include "tests/fuzz/message_generator.h"

namespace gdn {
namespace {

constexpr int kMessages = 60000;
constexpr std::chrono::seconds kBudget(3);

std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (unsigned char byte : bytes) hex.append({kDigits[byte >> 4], kDigits[byte & 15], ' '});
  return hex;
}

class CodecFuzz : public ::testing::Test {
 protected:
  // Refused UTF-8 is logged by the generated parser.
  void SetUp() override { google::protobuf::SetLogHandler(nullptr); }

  // Calls compare(pieces) with the whole, with single bytes and with random cuts.
  template <typename Compare>
  void ForSlicings(const std::string& message, Compare compare) {
    const auto next = [this](size_t n) { return generator_.Below(n); };
    const size_t longest = 1 + generator_.Below(40);
    ASSERT_EQ(compare(std::vector<std::string_view>{message}), "") << Hex(message);
    ASSERT_EQ(compare(Slice(message, 1, next)), "") << "bytes of " << Hex(message);
    ASSERT_EQ(compare(Slice(message, longest, next)), "") << "pieces of " << Hex(message);
  }

  // Makes messages, mutates half of them, and compares; both verdicts must come up often.
  template <typename Make, typename Accepts, typename Compare>
  void Run(Make make, Accepts accepts, Compare compare) {
    const auto end = std::chrono::steady_clock::now() + kBudget;
    int taken = 0, all = 0;
    for (; all < kMessages && std::chrono::steady_clock::now() < end; ++all) {
      std::string message = make();
      if (all % 2 == 1) generator_.Mutate(&message);
      taken += accepts(message);
      ASSERT_NO_FATAL_FAILURE(ForSlicings(message, compare));
    }
    RecordProperty("messages", all);
    EXPECT_GT(taken, all / 3);
    EXPECT_LT(taken, all * 9 / 10);
  }

  MessageGenerator generator_{20240607};
};

TEST_F(CodecFuzz, StepRequestsAgreeWithTheGeneratedParser) {
  Run([this] { return generator_.StepMessage(); }, GeneratedAcceptsStep,
      [](const std::vector<std::string_view>& pieces) { return CompareDecodeRequest(pieces); });
}

TEST_F(CodecFuzz, StreamRequestsAgreeWithTheGeneratedParser) {
  Run([this] { return generator_.StreamMessage(); }, GeneratedAcceptsStream,
      [](const std::vector<std::string_view>& pieces) { return CompareStreamRequest(pieces); });
}

TEST_F(CodecFuzz, TruncationsAgreeWithTheGeneratedParser) {
  for (int i = 0; i < 8; ++i) {
    const std::string message = generator_.StreamMessage();
    for (size_t size = 0; size <= message.size(); ++size) {
      ASSERT_NO_FATAL_FAILURE(ForSlicings(message.substr(0, size), CompareStreamRequest));
    }
  }
}

StepAnswer RandomAnswer(MessageGenerator& random, std::string* output) {
  StepAnswer answer;
  for (size_t row = random.Below(200); row > 0; --row) {
    answer.slots.push_back(static_cast<int32_t>(random.Below(1000)) - 1);
    answer.epochs.push_back(random.Below(~size_t{0}));
  }
  if (random.Below(3) == 0) answer.slots.clear(), answer.epochs.clear();
  answer.replayed_rows = static_cast<uint32_t>(random.Below(3) * random.Below(1000));
  output->assign(random.Below(2) * random.Below(1000), static_cast<char>(random.Below(256)));
  answer.output.data = reinterpret_cast<std::byte*>(output->data());
  answer.output.size = output->size();
  return answer;
}

template <typename Response>
void ExpectSame(const StepAnswer& answer, const std::string& output, const Response& response) {
  EXPECT_TRUE(std::equal(answer.slots.begin(), answer.slots.end(), response.slots().begin(),
                         response.slots().end()));
  EXPECT_TRUE(std::equal(answer.epochs.begin(), answer.epochs.end(), response.epochs().begin(),
                         response.epochs().end()));
  EXPECT_EQ(response.replayed_rows(), answer.replayed_rows);
  EXPECT_EQ(response.output(), output);
}

TEST_F(CodecFuzz, AnswersParseBack) {
  for (int i = 0; i < 2000; ++i) {
    std::string output;
    const StepAnswer answer = RandomAnswer(generator_, &output);
    const uint64_t tag = generator_.Below(3) * generator_.Below(1 << 30);

    v1::DecodeResponse response;
    ASSERT_TRUE(response.ParseFromString(EncodeAnswerHeader(answer) + output));
    ExpectSame(answer, output, response);

    v1::StreamResponse stream;
    const StepKind kind = i % 2 == 0 ? StepKind::kPrefill : StepKind::kDecode;
    ASSERT_TRUE(stream.ParseFromString(EncodeStreamAnswerHeader(tag, kind, answer) + output));
    EXPECT_EQ(stream.tag(), tag);
    ASSERT_EQ(stream.has_prefill(), kind == StepKind::kPrefill);
    ASSERT_EQ(stream.has_decode(), kind == StepKind::kDecode);
    if (stream.has_prefill()) ExpectSame(answer, output, stream.prefill());
    if (stream.has_decode()) ExpectSame(answer, output, stream.decode());
  }
}

}  // namespace
}  // namespace gdn
