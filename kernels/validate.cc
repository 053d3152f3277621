#include "kernels/validate.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace gdn {
namespace {

absl::string_view Name(DType type) {
  switch (type) {
    case DType::kFp32:
      return "fp32";
    case DType::kBf16:
      return "bf16";
    case DType::kFp16:
      return "fp16";
  }
  return "unknown";
}

template <typename Expected, typename Found>
absl::Status Unfit(absl::string_view what, const Expected& expected, const Found& found) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": expected ", expected, ", found ", found));
}

absl::Status CheckPositive(absl::string_view what, int64_t value) {
  if (value > 0) return absl::OkStatus();
  return Unfit(what, "a positive number", value);
}

absl::Status CheckHeadDim(absl::string_view what, int dim) {
  if (dim >= 64 && dim <= 256 && dim % 32 == 0) return absl::OkStatus();
  return Unfit(what, "64 to 256 in steps of 32", dim);
}

bool Known(DType type) { return Name(type) != "unknown"; }

std::string Describe(DType type, int64_t rows, int64_t columns) {
  return absl::StrCat("[", rows, ", ", columns, "] ", Name(type));
}

absl::Status CheckTensor(absl::string_view what, const TensorView& t, DType type, int64_t rows,
                         int64_t columns) {
  const std::string expected = Describe(type, rows, columns);
  if (t.empty()) return Unfit(what, expected, "nothing");
  if (t.type == type && t.shape[0] == rows && t.shape[1] == columns) return absl::OkStatus();
  return Unfit(what, expected, Describe(t.type, t.shape[0], t.shape[1]));
}

absl::Status CheckAbsent(absl::string_view what, const TensorView& t) {
  if (t.empty()) return absl::OkStatus();
  return Unfit(what, "nothing", Describe(t.type, t.shape[0], t.shape[1]));
}

absl::Status CheckMatrices(const LayerWeights& w, const BackendShape& s) {
  const Geometry& g = s.geometry;
  if (!s.projections) {
    if (absl::Status st = CheckAbsent("in_proj", w.in_proj); !st.ok()) return st;
    return CheckAbsent("out_proj", w.out_proj);
  }
  if (absl::Status st = CheckTensor("in_proj", w.in_proj, s.io, g.in_proj_size(), g.hidden_size);
      !st.ok()) {
    return st;
  }
  return CheckTensor("out_proj", w.out_proj, s.io, g.hidden_size, g.value_size());
}

absl::Status CheckConvolution(const LayerWeights& w, const Geometry& g) {
  if (g.conv_width == 0) {
    if (absl::Status st = CheckAbsent("conv_weight", w.conv_weight); !st.ok()) return st;
    return CheckAbsent("conv_bias", w.conv_bias);
  }
  if (absl::Status st =
          CheckTensor("conv_weight", w.conv_weight, DType::kFp32, g.conv_dim(), g.conv_width);
      !st.ok()) {
    return st;
  }
  if (w.conv_bias.empty()) return absl::OkStatus();
  return CheckTensor("conv_bias", w.conv_bias, DType::kFp32, g.conv_dim(), 1);
}

absl::Status CheckLayout(const Batch& b, const BackendShape& s) {
  if (b.layer < 0 || b.layer >= s.layers) {
    return Unfit("layer", absl::StrCat("0 to ", s.layers - 1), b.layer);
  }
  const int layout = static_cast<int>(b.layout);
  if (b.layout < InputLayout::kHidden || b.layout > InputLayout::kQkvZBetaG) {
    return Unfit("layout", "1 to 5", layout);
  }
  if (b.layout == InputLayout::kHidden && !s.projections) {
    return Unfit("layout", "a projected one, since the layers have no projections", layout);
  }
  return absl::OkStatus();
}

absl::Status CheckRowArrays(const Batch& b, const BackendShape& s) {
  if (b.rows() > s.max_rows) return Unfit("rows", absl::StrCat("at most ", s.max_rows), b.rows());
  if (b.offsets.size() != b.slots.size() + 1) {
    return Unfit("offsets", absl::StrCat(b.rows() + 1, " entries"), b.offsets.size());
  }
  if (b.has_initial_state.size() != b.slots.size()) {
    return Unfit("has_initial_state", absl::StrCat(b.rows(), " entries"),
                 b.has_initial_state.size());
  }
  if (b.keep_answer.size() != b.slots.size()) {
    return Unfit("keep_answer", absl::StrCat(b.rows(), " entries"), b.keep_answer.size());
  }
  return absl::OkStatus();
}

absl::Status CheckOffsets(const Batch& b, const BackendShape& s) {
  if (b.offsets[0] != 0) return Unfit("offsets[0]", 0, b.offsets[0]);
  for (int64_t row = 0; row < b.rows(); ++row) {
    if (b.offsets[row + 1] < b.offsets[row]) {
      return Unfit(absl::StrCat("offsets[", row + 1, "]"),
                   absl::StrCat("at least ", b.offsets[row]), b.offsets[row + 1]);
    }
    if (b.keep_answer[row] != 0 && b.length(row) > s.max_decode_tokens) {
      return Unfit(absl::StrCat("length of row ", row, ", whose answer is kept"),
                   absl::StrCat("at most ", s.max_decode_tokens), b.length(row));
    }
  }
  if (b.tokens() <= s.max_tokens) return absl::OkStatus();
  return Unfit("tokens", absl::StrCat("at most ", s.max_tokens), b.tokens());
}

absl::Status CheckSlots(const Batch& b, const BackendShape& s) {
  absl::flat_hash_set<int32_t> seen;
  seen.reserve(b.slots.size());
  for (int64_t row = 0; row < b.rows(); ++row) {
    const int32_t slot = b.slots[row];
    if (slot < 0) continue;
    if (slot >= s.slots) {
      return Unfit(absl::StrCat("slot of row ", row), absl::StrCat("less than ", s.slots), slot);
    }
    if (!seen.insert(slot).second) {
      return Unfit(absl::StrCat("slot of row ", row), "one that no other row has", slot);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPart(const BatchPart& part, absl::string_view name, size_t row_bytes) {
  size_t bytes = 0;
  for (std::string_view piece : part.input) bytes += piece.size();
  const size_t expected =
      part.synthetic_seed != 0 ? 0 : static_cast<size_t>(part.tokens) * row_bytes;
  if (bytes == expected) return absl::OkStatus();
  return Unfit(absl::StrCat("input of ", name), absl::StrCat(expected, " bytes"), bytes);
}

absl::Status CheckParts(const Batch& b, const BackendShape& s) {
  const size_t row_bytes = InputRowBytes(s.geometry, b.layout, s.io);
  int64_t next = 0;
  for (size_t i = 0; i < b.parts.size(); ++i) {
    const BatchPart& part = b.parts[i];
    const std::string name = absl::StrCat("part ", i);
    if (part.first_token != next) {
      return Unfit(absl::StrCat("first token of ", name), next, part.first_token);
    }
    if (part.tokens < 0 || part.tokens > b.tokens() - next) {
      return Unfit(absl::StrCat("tokens of ", name), absl::StrCat("0 to ", b.tokens() - next),
                   part.tokens);
    }
    if (absl::Status st = CheckPart(part, name, row_bytes); !st.ok()) return st;
    next += part.tokens;
  }
  if (next == b.tokens()) return absl::OkStatus();
  return Unfit("tokens of all parts", b.tokens(), next);
}

// A size that 64 bits cannot count is not worth naming more exactly.
absl::Status CheckPoolBytes(const BackendShape& s) {
  constexpr double kLimit = 4e18;
  BackendShape one = s;
  one.layers = one.slots = one.max_decode_tokens = 1;
  const double bytes =
      static_cast<double>(one.pool_bytes()) * s.layers * s.slots +
      static_cast<double>(s.answer_row_bytes()) * s.layers * s.slots * s.max_decode_tokens;
  if (bytes < kLimit) return absl::OkStatus();
  return Unfit("bytes of the pools", absl::StrCat("less than ", kLimit), bytes);
}

}  // namespace

absl::Status Validate(const Geometry& g) {
  for (const auto& [what, value] : {std::pair<absl::string_view, int>{"hidden_size", g.hidden_size},
                                    {"key_heads", g.key_heads},
                                    {"value_heads", g.value_heads}}) {
    if (absl::Status st = CheckPositive(what, value); !st.ok()) return st;
  }
  if (g.value_heads % g.key_heads != 0) {
    return Unfit("value_heads", absl::StrCat("a multiple of the ", g.key_heads, " key_heads"),
                 g.value_heads);
  }
  if (absl::Status st = CheckHeadDim("key_dim", g.key_dim); !st.ok()) return st;
  if (absl::Status st = CheckHeadDim("value_dim", g.value_dim); !st.ok()) return st;
  if (g.conv_width != 0 && (g.conv_width < 2 || g.conv_width > 4)) {
    return Unfit("conv_width", "0 or 2 to 4", g.conv_width);
  }
  if (!(g.norm_eps > 0) || !std::isfinite(g.norm_eps)) {
    return Unfit("norm_eps", "a positive number", g.norm_eps);
  }
  return absl::OkStatus();
}

absl::Status Validate(const BackendShape& s) {
  if (absl::Status st = Validate(s.geometry); !st.ok()) return st;
  if (!Known(s.io)) return Unfit("io type", "fp32, bf16 or fp16", static_cast<int>(s.io));
  if (s.state != DType::kFp32 && s.state != DType::kBf16) {
    return Unfit("state type", "fp32 or bf16", Name(s.state));
  }
  for (const auto& [what, value] : {std::pair<absl::string_view, int64_t>{"layers", s.layers},
                                    {"slots", s.slots},
                                    {"max_rows", s.max_rows},
                                    {"max_tokens", s.max_tokens},
                                    {"max_decode_tokens", s.max_decode_tokens}}) {
    if (absl::Status st = CheckPositive(what, value); !st.ok()) return st;
  }
  return CheckPoolBytes(s);
}

absl::Status Validate(const LayerWeights& w, const BackendShape& s) {
  const Geometry& g = s.geometry;
  if (absl::Status st = CheckMatrices(w, s); !st.ok()) return st;
  if (absl::Status st = CheckConvolution(w, g); !st.ok()) return st;
  if (absl::Status st = CheckTensor("A_log", w.a_log, DType::kFp32, g.value_heads, 1); !st.ok()) {
    return st;
  }
  if (absl::Status st = CheckTensor("dt_bias", w.dt_bias, DType::kFp32, g.value_heads, 1);
      !st.ok()) {
    return st;
  }
  return CheckTensor("norm", w.norm, DType::kFp32, g.value_dim, 1);
}

absl::Status Validate(const Batch& b, const BackendShape& s) {
  if (absl::Status st = CheckLayout(b, s); !st.ok()) return st;
  if (absl::Status st = CheckRowArrays(b, s); !st.ok()) return st;
  if (absl::Status st = CheckOffsets(b, s); !st.ok()) return st;
  if (absl::Status st = CheckSlots(b, s); !st.ok()) return st;
  return CheckParts(b, s);
}

}  // namespace gdn
