#include "server/checkpoint/layer_reader.h"

#include <algorithm>
#include <cassert>
#include <span>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/convert.h"

namespace gdn {
namespace {

constexpr int64_t kPieceElements = 256 << 10;  // read, converted and checked at a time: fits the L2

const char* Name(DType type) {
  switch (type) {
    case DType::kBf16:
      return "bf16";
    case DType::kFp16:
      return "fp16";
    case DType::kFp32:
      break;
  }
  return "fp32";
}

size_t Lines(size_t bytes) { return (bytes + 63) / 64; }

// What the layer's tensors take in memory, each from a line of its own.
size_t BufferBytes(const LayerTensors& layer, DType io) {
  size_t lines = 0;
  for (size_t role = 0; role < kTensorRoles; ++role) {
    const auto& source = layer.by_role[role];
    if (!source) continue;
    const DType type = IsMatrix(static_cast<TensorRole>(role)) ? io : DType::kFp32;
    lines += Lines(static_cast<size_t>(source->rows * source->columns) * SizeOf(type));
  }
  return lines * 64;
}

}  // namespace

std::vector<RowRun> InProjRuns(const Geometry& g, bool interleaved) {
  using R = TensorRole;
  const int64_t z = g.conv_dim(), b = z + g.value_size(), a = b + g.value_heads;
  if (!interleaved) {
    return {{R::kQkv, 0, 0, g.conv_dim()},
            {R::kZ, 0, z, g.value_size()},
            {R::kB, 0, b, g.value_heads},
            {R::kA, 0, a, g.value_heads}};
  }
  // Group h, one for each key head, is q [K] | k [K] | v [R * V] | z [R * V] of qkvz and
  // b [R] | a [R] of ba.
  const int64_t key = g.key_dim, values = int64_t{g.group()} * g.value_dim, heads = g.group();
  std::vector<RowRun> runs;
  for (int64_t h = 0; h < g.key_heads; ++h) {
    const int64_t qkvz = h * (2 * key + 2 * values), ba = h * 2 * heads;
    runs.push_back({R::kQkvz, qkvz, h * key, key});
    runs.push_back({R::kQkvz, qkvz + key, g.key_size() + h * key, key});
    runs.push_back({R::kQkvz, qkvz + 2 * key, 2 * g.key_size() + h * values, values});
    runs.push_back({R::kQkvz, qkvz + 2 * key + values, z + h * values, values});
    runs.push_back({R::kBa, ba, b + h * heads, heads});
    runs.push_back({R::kBa, ba + heads, a + h * heads, heads});
  }
  return runs;
}

absl::StatusOr<LayerWeights> LayerReader::Read(const Geometry& g, const LayerTensors& layer,
                                               DType io) {
  using R = TensorRole;
  Reserve(BufferBytes(layer, io));
  LayerWeights weights;
  for (const absl::Status& read : {
           ReadInProj(g, layer, io, &weights.in_proj),
           ReadWhole(layer[R::kOut], io, &weights.out_proj),
           ReadWhole(layer[R::kConvWeight], DType::kFp32, &weights.conv_weight),
           ReadWhole(layer[R::kConvBias], DType::kFp32, &weights.conv_bias),
           ReadWhole(layer[R::kALog], DType::kFp32, &weights.a_log),
           ReadWhole(layer[R::kDtBias], DType::kFp32, &weights.dt_bias),
           ReadWhole(layer[R::kNorm], DType::kFp32, &weights.norm),
       }) {
    if (!read.ok()) return read;
  }
  return weights;
}

void LayerReader::Reserve(size_t bytes) {
  taken_ = 0;
  if (Lines(bytes) <= capacity_) return;
  lines_.reset();
  capacity_ = Lines(bytes);
  lines_ = std::make_unique_for_overwrite<Line[]>(capacity_);
}

std::byte* LayerReader::Take(size_t bytes) {
  std::byte* start = lines_[taken_].bytes;
  taken_ += Lines(bytes);
  assert(taken_ <= capacity_);
  return start;
}

// Makes *out the whole tensor, or leaves it empty where there is none.
absl::Status LayerReader::ReadWhole(const std::optional<TensorSource>& source, DType to,
                                    TensorView* out) {
  if (!source) return absl::OkStatus();
  out->type = to;
  out->shape = {source->rows, source->columns};
  std::byte* data = Take(out->bytes());
  out->data = data;
  return ReadRows(*source, 0, source->rows, to, data);
}

absl::Status LayerReader::ReadInProj(const Geometry& g, const LayerTensors& layer, DType to,
                                     TensorView* out) {
  if (!layer.has_projections()) return absl::OkStatus();
  out->type = to;
  out->shape = {g.in_proj_size(), g.hidden_size};
  std::byte* data = Take(out->bytes());
  out->data = data;
  const size_t row_bytes = static_cast<size_t>(g.hidden_size) * SizeOf(to);
  for (const RowRun& run : InProjRuns(g, layer.interleaved())) {
    absl::Status read = ReadRows(*layer[run.role], run.from, run.rows, to,
                                 data + static_cast<size_t>(run.to) * row_bytes);
    if (!read.ok()) return read;
  }
  return absl::OkStatus();
}

// Reads rows [row, row + rows) of the tensor to `out`, converted to `to`.
absl::Status LayerReader::ReadRows(const TensorSource& source, int64_t row, int64_t rows, DType to,
                                   std::byte* out) {
  const int64_t elements = rows * source.columns;
  const uint64_t offset =
      source.offset + static_cast<uint64_t>(row * source.columns) * SizeOf(source.type);
  for (int64_t done = 0; done < elements; done += kPieceElements) {
    const auto n = static_cast<size_t>(std::min(kPieceElements, elements - done));
    std::byte* piece = out + static_cast<size_t>(done) * SizeOf(to);
    if (source.type != to) raw_.resize(static_cast<size_t>(kPieceElements) * SizeOf(DType::kFp32));
    std::byte* raw = source.type == to ? piece : raw_.data();
    absl::Status read = source.file->Read(
        offset + static_cast<uint64_t>(done) * SizeOf(source.type), {raw, n * SizeOf(source.type)});
    if (!read.ok()) return read;
    if (raw != piece) Convert(source.type, raw, to, piece, n);
    if (!AllFinite(to, piece, n)) {
      return absl::FailedPreconditionError(absl::StrCat(source.file->path(), ": ", source.name,
                                                        ": expected finite values in ", Name(to),
                                                        ", found NaN or infinity"));
    }
  }
  return absl::OkStatus();
}

}  // namespace gdn
