// What the wire costs beside the copies: parsing, checking and answering a decode step of 128 rows
// at hidden 2048 (512 KiB of bf16), the message in pieces as gRPC receives them.
#include <string>
#include <string_view>
#include <vector>

#include "benchmark/benchmark.h"
#include "gdn/v1/gdn_service.pb.h"
#include "server/wire/codec.h"
#include "server/wire/validate_step.h"

namespace gdn {
namespace {

constexpr int kHidden = 2048;

std::string MakeMessage(int rows, bool by_id) {
  v1::DecodeRequest message;
  message.set_layer(4);
  v1::Batch& batch = *message.mutable_batch();
  batch.set_data_type(v1::DATA_TYPE_BF16);
  batch.set_input_layout(v1::INPUT_LAYOUT_HIDDEN);
  batch.set_step_id(1);
  for (int row = 0; row < rows; ++row) {
    if (by_id) batch.add_request_ids("chat-completion-" + std::to_string(100000 + row));
    if (!by_id) batch.add_slots(row);
    batch.add_epochs(1'000'000'007ull * row + 1);
    batch.add_positions(1000 + row);
  }
  message.set_input(std::string(size_t{2} * kHidden * rows, 'x'));
  return message.SerializeAsString();
}

std::vector<std::string_view> Cut(std::string_view message, size_t piece) {
  std::vector<std::string_view> pieces;
  for (; !message.empty(); message.remove_prefix(std::min(piece, message.size()))) {
    pieces.push_back(message.substr(0, piece));
  }
  return pieces;
}

// Arguments: rows; 1 where they come by id; bytes of a piece.
void BM_ParseStepRequest(benchmark::State& state) {
  const std::string message = MakeMessage(static_cast<int>(state.range(0)), state.range(1) != 0);
  const auto pieces = Cut(message, state.range(2));
  for (auto _ : state) {
    StepRequest request;
    benchmark::DoNotOptimize(ParseStepRequest(pieces, &request));
  }
}
BENCHMARK(BM_ParseStepRequest)
    ->ArgNames({"rows", "ids", "piece"})
    ->Args({128, 0, 1 << 20})
    ->Args({128, 0, 65536})
    ->Args({128, 0, 1})
    ->Args({128, 1, 65536});

// The generated parser on the same bytes, for comparison.
void BM_GeneratedParser(benchmark::State& state) {
  const std::string message = MakeMessage(static_cast<int>(state.range(0)), state.range(1) != 0);
  for (auto _ : state) {
    v1::DecodeRequest request;
    benchmark::DoNotOptimize(request.ParseFromString(message));
  }
}
BENCHMARK(BM_GeneratedParser)->ArgNames({"rows", "ids"})->Args({128, 0})->Args({128, 1});

void BM_ValidateStep(benchmark::State& state) {
  const std::string message = MakeMessage(static_cast<int>(state.range(0)), state.range(1) != 0);
  const std::string_view piece = message;
  StepRequest request;
  if (!ParseStepRequest({&piece, 1}, &request)) return state.SkipWithError("does not parse");
  StepLimits limits;
  limits.geometry = {
      .hidden_size = kHidden, .key_heads = 16, .value_heads = 32, .key_dim = 128, .value_dim = 128};
  limits.layers = {0, 1, 2, 4};
  limits.projections = true;
  limits.slots = 1000;
  limits.max_rows = 128;
  limits.max_tokens = 8192;
  limits.max_decode_tokens = 1;
  for (auto _ : state) {
    const Fault fault = ValidateStep(request, StepKind::kDecode, limits);
    if (!fault.ok()) state.SkipWithError(fault.message.c_str());
  }
}
BENCHMARK(BM_ValidateStep)->ArgNames({"rows", "ids"})->Args({128, 0})->Args({128, 1});

void BM_EncodeAnswerHeader(benchmark::State& state) {
  StepAnswer answer;
  answer.slots.resize(state.range(0));
  answer.epochs.resize(state.range(0));
  answer.output.size = size_t{2} * kHidden * state.range(0);
  for (auto _ : state) benchmark::DoNotOptimize(EncodeAnswerHeader(answer));
}
BENCHMARK(BM_EncodeAnswerHeader)->ArgName("rows")->Arg(128);

}  // namespace
}  // namespace gdn
