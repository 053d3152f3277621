// The wire format of the hot messages, read from and written to the bytes in pieces: the tensor is
// never copied. Compatible with every protobuf implementation: split and unpacked arrays, repeated
// `batch` (merged), a later oneof member instead of an earlier one (the same member merges),
// unknown fields (skipped), last scalar wins, strings must be UTF-8.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "google/rpc/status.pb.h"
#include "server/wire/step.h"

namespace gdn {

// Rows by id that are kept of a request: what comes after them is parsed and dropped, so that a
// message of empty ids (2 bytes each) cannot take 16 times its size. More than any server's
// max_rows.
inline constexpr size_t kMaxRequestIds = 65536;

// Parses gdn.v1.PrefillRequest / DecodeRequest. `pieces` together are the message; `request->input`
// will point into them. False where the generated parser would fail.
bool ParseStepRequest(std::span<const std::string_view> pieces, StepRequest* request);

// gdn.v1.StreamRequest.
struct StreamStep {
  uint64_t tag = 0;
  bool has_step = false;
  StepKind kind = StepKind::kDecode;
  StepRequest request;
};
bool ParseStreamRequest(std::span<const std::string_view> pieces, StreamStep* step);

// The bytes of gdn.v1.PrefillResponse / DecodeResponse that go before the output's own bytes: the
// message is this and then answer.output. Empty where the message is empty.
std::string EncodeAnswerHeader(const StepAnswer& answer);

// The same for gdn.v1.StreamResponse with the answer to a step of `kind`.
std::string EncodeStreamAnswerHeader(uint64_t tag, StepKind kind, const StepAnswer& answer);

// gdn.v1.StreamResponse with a status, whole.
std::string EncodeStreamStatus(uint64_t tag, const google::rpc::Status& status);

}  // namespace gdn
