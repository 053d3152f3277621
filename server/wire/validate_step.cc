#include "server/wire/validate_step.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/layout.h"

namespace gdn {
namespace {

constexpr size_t kMaxIdSize = 128;

Fault Malformed(std::string message) {
  return FaultOf(v1::ERROR_REASON_MALFORMED_BATCH, std::move(message));
}

Fault Unsupported(std::string message) {
  return FaultOf(v1::ERROR_REASON_UNSUPPORTED, std::move(message));
}

Fault TooLarge(std::string message) {
  return FaultOf(v1::ERROR_REASON_BATCH_TOO_LARGE, std::move(message));
}

Fault CheckLength(const char* array, size_t length, size_t rows) {
  if (length == 0 || length == rows) return {};
  return Malformed(absl::StrCat(array, " has ", length, " elements for ", rows, " rows."));
}

// The rules at gdn.v1.Batch about which fields go together.
Fault CheckArrays(const StepRequest& r) {
  if (!r.request_ids.empty() && !r.slots.empty()) {
    return Malformed(absl::StrCat("Both request_ids (", r.request_ids.size(), ") and slots (",
                                  r.slots.size(), ") are filled."));
  }
  const size_t rows = r.rows();
  if (rows == 0) return Malformed("Neither request_ids nor slots are filled: 0 rows.");
  if (!r.by_id() && r.epochs.empty()) {
    return Malformed(absl::StrCat(rows, " rows by slot have no epochs."));
  }
  if (!r.by_id() && r.create) return Malformed("`create` needs request_ids, not slots.");
  if (r.speculative && r.release_after) {
    return Malformed("`speculative` and `release_after` exclude each other.");
  }
  for (Fault fault : {CheckLength("epochs", r.epochs.size(), rows),
                      CheckLength("positions", r.positions.size(), rows),
                      CheckLength("token_counts", r.token_counts.size(), rows)}) {
    if (!fault.ok()) return fault;
  }
  return {};
}

v1::DataType ToDataType(DType type) {
  switch (type) {
    case DType::kBf16:
      return v1::DATA_TYPE_BF16;
    case DType::kFp16:
      return v1::DATA_TYPE_FP16;
    case DType::kFp32:
      return v1::DATA_TYPE_FP32;
  }
  return v1::DATA_TYPE_UNSPECIFIED;
}

// The name of an open enum's value, or its number.
std::string Describe(int data_type) {
  const std::string name = v1::DataType_Name(static_cast<v1::DataType>(data_type));
  return name.empty() ? absl::StrCat(data_type) : name;
}

// UNSPECIFIED is as HIDDEN.
std::optional<InputLayout> ToLayout(int layout) {
  if (layout == v1::INPUT_LAYOUT_UNSPECIFIED) return InputLayout::kHidden;
  if (!v1::InputLayout_IsValid(layout)) return std::nullopt;
  return static_cast<InputLayout>(layout);
}

bool StatesBetaAndG(InputLayout layout) {
  return layout == InputLayout::kQkvBetaG || layout == InputLayout::kQkvZBetaG;
}

Fault CheckSupported(const StepRequest& r, const StepLimits& limits) {
  const auto& layers = limits.layers;
  if (std::find(layers.begin(), layers.end(), r.layer) == layers.end()) {
    return Unsupported(
        absl::StrCat("Layer ", r.layer, " is none of the ", layers.size(), " layers hosted."));
  }
  if (r.data_type != ToDataType(limits.io)) {
    return Unsupported(absl::StrCat("data_type is ", Describe(r.data_type), ", the server's is ",
                                    Describe(ToDataType(limits.io)), "."));
  }
  const std::optional<InputLayout> layout = ToLayout(r.input_layout);
  if (!layout) return Unsupported(absl::StrCat("There is no input_layout ", r.input_layout, "."));
  if (layout == InputLayout::kHidden && !limits.projections) {
    return Unsupported("input_layout HIDDEN needs projections, which the checkpoint lacks.");
  }
  if (r.synthetic_seed != 0 && StatesBetaAndG(*layout)) {
    return Unsupported(
        absl::StrCat("Input of input_layout ", r.input_layout, " cannot be synthetic."));
  }
  if (r.speculative) return Unsupported("Speculative steps are not taken (0 tokens a row).");
  if (r.shared_memory && !limits.allow_shared_memory) {
    return Unsupported("Tensors in shared memory are taken with --allow_shared_memory alone.");
  }
  return {};
}

Fault CheckRowCount(const StepRequest& r, const StepLimits& limits) {
  const size_t rows = r.rows();
  if (rows <= limits.max_rows) return {};
  return TooLarge(absl::StrCat(rows, " rows; at most ", limits.max_rows, " make a batch."));
}

Fault CheckTokens(const StepRequest& r, StepKind kind, const StepLimits& limits) {
  const uint64_t tokens = r.total_tokens();
  if (tokens > limits.max_tokens) {
    return TooLarge(absl::StrCat(tokens, " tokens; at most ", limits.max_tokens, " make a batch."));
  }
  if (kind != StepKind::kDecode) return {};
  for (size_t row = 0; row < r.token_counts.size(); ++row) {
    if (r.token_counts[row] <= limits.max_decode_tokens) continue;
    return TooLarge(absl::StrCat("Row ", row, " decodes ", r.token_counts[row], " tokens; at most ",
                                 limits.max_decode_tokens, " make a row."));
  }
  return {};
}

Fault CheckInput(const StepRequest& r, const StepLimits& limits) {
  if (r.synthetic_seed != 0) {
    if (limits.allow_synthetic_input) return {};
    return FaultOf(v1::ERROR_REASON_SYNTHETIC_INPUT_DISABLED,
                   "The server was started without --allow_synthetic_input.");
  }
  // No overflow: CheckTokens bounds the tokens.
  const uint64_t tokens = r.total_tokens();
  const uint64_t row_bytes = InputRowBytes(limits.geometry, *ToLayout(r.input_layout), limits.io);
  const uint64_t expected = r.shared_memory ? 0 : tokens * row_bytes;
  const uint64_t actual = r.input_bytes();
  if (actual == expected) return {};
  Fault fault = FaultOf(v1::ERROR_REASON_INPUT_SIZE_MISMATCH,
                        absl::StrCat("`input` has ", actual, " bytes; ", tokens, " tokens take ",
                                     expected, r.shared_memory ? " beside shared memory." : "."));
  fault.metadata = {{"expected_bytes", absl::StrCat(expected)},
                    {"actual_bytes", absl::StrCat(actual)}};
  return fault;
}

// Names row `row`; the first one gives the message.
void Name(v1::ErrorReason why, size_t row, const std::string& what, Fault* fault) {
  if (fault->ok()) fault->message = absl::StrCat("Row ", row, " ", what);
  fault->AddRow(why, static_cast<uint32_t>(row));
}

Fault CheckIds(const StepRequest& r) {
  Fault fault;
  absl::flat_hash_set<absl::string_view> seen;
  seen.reserve(r.rows());
  for (size_t row = 0; row < r.rows(); ++row) {
    const std::string& id = r.request_ids[row];
    if (id.empty()) continue;
    if (!IsWellFormedId(id)) {
      Name(v1::ERROR_REASON_MALFORMED_ID, row,
           absl::StrCat("has a request_id of ", id.size(),
                        " bytes that is not 1 to 128 of [A-Za-z0-9._:/-]."),
           &fault);
    } else if (!seen.insert(id).second) {
      Name(v1::ERROR_REASON_DUPLICATE_ROW, row, "has the request_id of an earlier row.", &fault);
    }
  }
  return fault;
}

Fault CheckSlots(const StepRequest& r, const StepLimits& limits) {
  Fault fault;
  absl::flat_hash_set<int32_t> seen;
  seen.reserve(r.rows());
  for (size_t row = 0; row < r.rows(); ++row) {
    const int32_t slot = r.slots[row];
    if (slot < 0) continue;
    if (!seen.insert(slot).second) {
      Name(v1::ERROR_REASON_DUPLICATE_ROW, row, "has the slot of an earlier row.", &fault);
    } else if (static_cast<uint32_t>(slot) >= limits.slots) {
      Name(v1::ERROR_REASON_SLOT_OUT_OF_RANGE, row,
           absl::StrCat("has slot ", slot, " of a pool of ", limits.slots, "."), &fault);
    }
  }
  return fault;
}

constexpr std::array<bool, 256> IdCharacters() {
  std::array<bool, 256> is = {};
  for (int c = 'a'; c <= 'z'; ++c) is[c] = true;
  for (int c = 'A'; c <= 'Z'; ++c) is[c] = true;
  for (int c = '0'; c <= '9'; ++c) is[c] = true;
  for (unsigned char c : {'.', '_', ':', '/', '-'}) is[c] = true;
  return is;
}

}  // namespace

bool IsWellFormedId(std::string_view id) {
  static constexpr std::array<bool, 256> kAllowed = IdCharacters();
  if (id.empty() || id.size() > kMaxIdSize) return false;
  return std::all_of(id.begin(), id.end(), [](unsigned char c) { return kAllowed[c]; });
}

Fault ValidateStep(const StepRequest& request, StepKind kind, const StepLimits& limits) {
  Fault fault = CheckRowCount(request, limits);
  if (fault.ok()) fault = CheckArrays(request);
  if (fault.ok()) fault = CheckSupported(request, limits);
  if (fault.ok()) fault = CheckTokens(request, kind, limits);
  if (fault.ok()) fault = CheckInput(request, limits);
  if (fault.ok()) fault = request.by_id() ? CheckIds(request) : CheckSlots(request, limits);
  return fault;
}

}  // namespace gdn
