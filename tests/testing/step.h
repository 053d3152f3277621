// One step at one layer, built row by row, for tests of whole backends. Owns everything that a
// Batch points to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "tests/testing/tensor.h"

namespace gdn::test {

struct StepRow {
  int32_t slot = 0;
  int64_t length = 1;
  bool has_initial_state = false;
  bool keep_answer = false;
};

// N(0, 1) for what enters linearly, and gates of the size that layers have.
inline Tensor RandomInput(Rng& rng, const InputTensor& t, int64_t tokens) {
  switch (t.kind) {
    case InputTensor::Kind::kBeta:
      return Tensor::Uniform(rng, t.type, tokens * t.width, 0.0f, 1.0f);
    case InputTensor::Kind::kG:
      return Tensor::Uniform(rng, t.type, tokens * t.width, -1.5f, 0.0f);
    default:
      return Tensor::Normal(rng, t.type, tokens * t.width);
  }
}

class Step {
 public:
  Step(Rng& rng, const BackendShape& shape, int layer, InputLayout layout,
       std::vector<StepRow> rows)
      : shape_(shape), layer_(layer), layout_(layout), rows_(std::move(rows)), offsets_{0} {
    for (const StepRow& row : rows_) offsets_.push_back(offsets_.back() + row.length);
    kinds_ = InputTensors(shape.geometry, layout, shape.io);
    for (const InputTensor& t : kinds_) tensors_.push_back(RandomInput(rng, t, tokens()));
    part_ends_ = {rows_.size()};
    seeds_ = {0};
    output_.resize(tokens() * output_row_bytes());
  }

  int layer() const { return layer_; }
  InputLayout layout() const { return layout_; }
  const std::vector<StepRow>& rows() const { return rows_; }
  int64_t tokens() const { return offsets_.back(); }
  int64_t begin(int64_t row) const { return offsets_[row]; }
  const std::vector<InputTensor>& kinds() const { return kinds_; }

  // Tensor i in wire order, [tokens, width].
  Tensor& tensor(size_t i) { return tensors_[i]; }

  // Merges requests: part i ends before row ends[i]; the last end is the number of rows.
  void SetParts(std::vector<size_t> ends) {
    part_ends_ = std::move(ends);
    seeds_.assign(part_ends_.size(), 0);
  }

  // The input of part `part` is made by the backend.
  void SetSynthetic(size_t part, uint64_t seed) { seeds_[part] = seed; }
  // Every part is of a request with so many tokens more, before and after it.
  void SetPiece(int64_t before, int64_t after) {
    tokens_before_ = before;
    tokens_after_ = after;
  }

  // Cuts the input of every part at random bytes, into `pieces` pieces, some of them empty.
  void CutPieces(Rng& rng, int pieces) {
    cut_ = &rng;
    pieces_ = pieces;
  }

  // The answer of no part is wanted.
  void DiscardOutput() { want_output_ = false; }

  absl::Status Run(Backend& backend) {
    if (absl::Status status = Begin(backend); !status.ok()) return status;
    return End(backend);
  }
  // A step that is begun stays where it is until its end.
  absl::Status Begin(Backend& backend) {
    parts_ = Parts();
    slots_.clear();
    has_initial_state_.clear();
    keep_answer_.clear();
    for (const StepRow& row : rows_) {
      slots_.push_back(row.slot);
      has_initial_state_.push_back(row.has_initial_state);
      keep_answer_.push_back(row.keep_answer);
    }
    std::fill(output_.begin(), output_.end(), std::byte{0xcc});
    faults_.assign(rows_.size(), RowFault::kDevice);
    return backend.Begin(
        {layer_, layout_, offsets_, slots_, has_initial_state_, keep_answer_, parts_});
  }
  absl::Status End(Backend& backend) { return backend.End(faults_); }

  RowFault fault(int64_t row) const { return faults_[row]; }

  std::span<const std::byte> output_bytes(int64_t row) const {
    return std::span(output_).subspan(offsets_[row] * output_row_bytes(),
                                      rows_[row].length * output_row_bytes());
  }

  std::vector<float> output(int64_t row) const {
    const std::span<const std::byte> bytes = output_bytes(row);
    std::vector<float> x(bytes.size() / SizeOf(shape_.io));
    for (size_t i = 0; i < x.size(); ++i) x[i] = Load(bytes.data(), shape_.io, i);
    return x;
  }

  // The tensors of one row, tensor by tensor.
  std::vector<std::byte> RowInput(int64_t row) const {
    const std::string wire = Wire(offsets_[row], offsets_[row + 1]);
    const auto* data = reinterpret_cast<const std::byte*>(wire.data());
    return {data, data + wire.size()};
  }

 private:
  size_t output_row_bytes() const { return OutputRowBytes(shape_.geometry, layout_, shape_.io); }

  std::string Wire(int64_t first, int64_t last) const {
    std::string wire;
    for (size_t i = 0; i < kinds_.size(); ++i) {
      const size_t row_bytes = kinds_[i].row_bytes();
      const auto* data = reinterpret_cast<const char*>(tensors_[i].data());
      wire.append(data + first * row_bytes, (last - first) * row_bytes);
    }
    return wire;
  }

  // Pieces of `wire` between random cuts. An empty wire has none.
  std::vector<std::string_view> Cut(std::string_view wire) const {
    if (wire.empty()) return {};
    std::vector<size_t> cuts = {0, wire.size()};
    for (int i = 1; i < pieces_; ++i) cuts.push_back((*cut_)() % (wire.size() + 1));
    std::sort(cuts.begin(), cuts.end());
    std::vector<std::string_view> pieces;
    for (size_t i = 1; i < cuts.size(); ++i) {
      pieces.push_back(wire.substr(cuts[i - 1], cuts[i] - cuts[i - 1]));
    }
    return pieces;
  }

  std::vector<BatchPart> Parts() {
    std::vector<BatchPart> parts(part_ends_.size());
    wires_.assign(parts.size(), {});
    piece_views_.assign(parts.size(), {});
    size_t row = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const int64_t first = offsets_[row];
      row = part_ends_[i];
      if (seeds_[i] == 0) wires_[i] = Wire(first, offsets_[row]);
      piece_views_[i] = Cut(wires_[i]);
      std::byte* out = want_output_ ? output_.data() + first * output_row_bytes() : nullptr;
      parts[i] = {first, offsets_[row] - first, piece_views_[i], seeds_[i], out};
      parts[i].tokens_before = tokens_before_;
      parts[i].tokens_after = tokens_after_;
    }
    return parts;
  }

  BackendShape shape_;
  int layer_;
  InputLayout layout_;
  std::vector<StepRow> rows_;
  std::vector<int64_t> offsets_;
  std::vector<InputTensor> kinds_;
  std::vector<Tensor> tensors_;
  std::vector<size_t> part_ends_;
  std::vector<uint64_t> seeds_;
  int64_t tokens_before_ = 0;
  int64_t tokens_after_ = 0;
  Rng* cut_ = nullptr;
  int pieces_ = 1;
  bool want_output_ = true;
  std::vector<std::byte> output_;
  std::vector<RowFault> faults_;

  // What the batch points to.
  std::vector<std::string> wires_;
  std::vector<std::vector<std::string_view>> piece_views_;
  std::vector<BatchPart> parts_;
  std::vector<int32_t> slots_;
  std::vector<uint8_t> has_initial_state_;
  std::vector<uint8_t> keep_answer_;
};

}  // namespace gdn::test
