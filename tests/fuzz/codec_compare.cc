#include "tests/fuzz/codec_compare.h"

#include <algorithm>

#include "gdn/v1/gdn_service.pb.h"
#include "server/wire/codec.h"

namespace gdn {
namespace {

std::string Join(std::span<const std::string_view> pieces) {
  std::string whole;
  for (std::string_view piece : pieces) whole += piece;
  return whole;
}

template <typename A, typename B>
bool SameArray(const A& ours, const B& theirs) {
  return std::equal(ours.begin(), ours.end(), theirs.begin(), theirs.end());
}

// The first field that differs.
template <typename Request>
std::string CompareFields(const StepRequest& ours, const Request& theirs) {
  const v1::Batch& batch = theirs.batch();
  if (ours.layer != theirs.layer()) return "layer";
  if (ours.data_type != batch.data_type()) return "data_type";
  if (ours.input_layout != batch.input_layout()) return "input_layout";
  if (ours.step_id != batch.step_id()) return "step_id";
  if (ours.create != batch.create()) return "create";
  if (ours.release_after != batch.release_after()) return "release_after";
  if (ours.speculative != batch.speculative()) return "speculative";
  if (ours.discard_output != batch.discard_output()) return "discard_output";
  if (ours.shared_memory.has_value() != theirs.has_shared_memory()) return "shared_memory";
  const SharedPlace place = ours.shared_memory.value_or(SharedPlace());
  if (place.region != theirs.shared_memory().region()) return "region";
  if (place.input_offset != theirs.shared_memory().input_offset()) return "input_offset";
  if (place.output_offset != theirs.shared_memory().output_offset()) return "output_offset";
  if (ours.synthetic_seed != theirs.synthetic_seed()) return "synthetic_seed";
  if (!SameArray(ours.request_ids, batch.request_ids())) return "request_ids";
  if (!SameArray(ours.slots, batch.slots())) return "slots";
  if (!SameArray(ours.epochs, batch.epochs())) return "epochs";
  if (!SameArray(ours.positions, batch.positions())) return "positions";
  if (!SameArray(ours.token_counts, batch.token_counts())) return "token_counts";
  if (Join(ours.input) != theirs.input()) return "input";
  if (ours.input_bytes() != theirs.input().size()) return "input_bytes()";
  return "";
}

std::string CompareVerdicts(bool ours, bool theirs) {
  if (ours == theirs) return "";
  return ours ? "accepted, the generated parser refuses" : "refused, the generated parser accepts";
}

template <typename Request>
std::string CompareStep(std::span<const std::string_view> pieces) {
  StepRequest ours;
  Request theirs;
  const bool accepted = ParseStepRequest(pieces, &ours);
  std::string verdict = CompareVerdicts(accepted, theirs.ParseFromString(Join(pieces)));
  return !verdict.empty() || !accepted ? verdict : CompareFields(ours, theirs);
}

}  // namespace

std::string ComparePrefillRequest(std::span<const std::string_view> pieces) {
  return CompareStep<v1::PrefillRequest>(pieces);
}

std::string CompareDecodeRequest(std::span<const std::string_view> pieces) {
  return CompareStep<v1::DecodeRequest>(pieces);
}

std::string CompareStreamRequest(std::span<const std::string_view> pieces) {
  StreamStep ours;
  v1::StreamRequest theirs;
  const bool accepted = ParseStreamRequest(pieces, &ours);
  std::string verdict = CompareVerdicts(accepted, theirs.ParseFromString(Join(pieces)));
  if (!verdict.empty() || !accepted) return verdict;
  if (ours.tag != theirs.tag()) return "tag";
  if (ours.has_step != (theirs.step_case() != v1::StreamRequest::STEP_NOT_SET)) return "step";
  if (!ours.has_step) return "";
  if ((ours.kind == StepKind::kPrefill) != theirs.has_prefill()) return "kind of step";
  return theirs.has_prefill() ? CompareFields(ours.request, theirs.prefill())
                              : CompareFields(ours.request, theirs.decode());
}

bool GeneratedAcceptsStep(std::string_view message) {
  return v1::DecodeRequest().ParseFromArray(message.data(), static_cast<int>(message.size()));
}

bool GeneratedAcceptsStream(std::string_view message) {
  return v1::StreamRequest().ParseFromArray(message.data(), static_cast<int>(message.size()));
}

}  // namespace gdn
