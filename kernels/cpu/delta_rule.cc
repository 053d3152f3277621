#include "kernels/cpu/delta_rule.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace gdn::cpu {
namespace {

std::byte* At(const void* data, DType type, int64_t i) {
  return static_cast<std::byte*>(const_cast<void*>(data)) + i * static_cast<int64_t>(SizeOf(type));
}

// Into how many pieces of value columns to cut each head, so that all threads have work. A column
// comes out the same however it is cut.
int Splits(const GatedDeltaRuleParams& p) {
  constexpr int kColumns = 32;
  const int64_t heads = p.rows.count * p.heads.value_heads;
  int splits = 1;
  while (heads * splits < Threads() && p.heads.value_dim % (2 * splits * kColumns) == 0)
    splits *= 2;
  return splits;
}

// Columns [column, column + columns) of one head of row `row`, which has a slot.
HeadTask TaskOf(const GatedDeltaRuleParams& p, int64_t row, int64_t head, int64_t column,
                int columns) {
  const int64_t first = p.rows.offsets[row];
  const int64_t key = head / (p.heads.value_heads / p.heads.key_heads) * p.heads.key_dim;
  const int64_t value = head * p.heads.value_dim + column;
  const int64_t gates = first * p.heads.value_heads + head;
  HeadTask t = {.tokens = p.rows.offsets[row + 1] - first,
                .key_dim = p.heads.key_dim,
                .value_dim = columns,
                .io = p.io,
                .o_type = p.o_type,
                .q = At(p.q, p.io, first * p.q_stride + key),
                .q_stride = p.q_stride,
                .k = At(p.k, p.io, first * p.k_stride + key),
                .k_stride = p.k_stride,
                .v = At(p.v, p.io, first * p.v_stride + value),
                .v_stride = p.v_stride,
                .g = p.g == nullptr ? nullptr : p.g + gates,
                .beta = p.beta == nullptr ? nullptr : p.beta + gates,
                .gate_stride = p.heads.value_heads,
                .scale = p.scale,
                .qk_l2norm = p.qk_l2norm,
                .o = At(p.o, p.o_type, first * p.o_stride + value),
                .o_stride = p.o_stride};
  if (p.ssm.data != nullptr) {
    t.state =
        At(p.ssm.data, p.ssm.type, p.rows.slot(row) * p.ssm.slot_stride + value * p.heads.key_dim);
    t.state_type = p.ssm.type;
    t.load_state = p.rows.has_state(row);
  }
  return t;
}

void ZeroOutput(const HeadTask& t) {
  for (int64_t i = 0; i < t.tokens; ++i) {
    std::memset(At(t.o, t.o_type, i * t.o_stride), 0, t.value_dim * SizeOf(t.o_type));
  }
}

void RunTask(const HeadTask& t, bool chunked) {
  if (t.tokens == 0) return;
  if (chunked) {
    BestKernels().chunked(t, ScratchTile(t.key_dim, t.value_dim));
  } else {
    const size_t elements = static_cast<size_t>(t.value_dim) * t.key_dim;
    BestKernels().recurrent(t, ThreadScratch(elements));
  }
}

// Rows of more than `recurrent_tokens` tokens in chunks.
void Run(const GatedDeltaRuleParams& p, int64_t recurrent_tokens) {
  const int splits = Splits(p);
  const int columns = p.heads.value_dim / splits;
  const int64_t tasks = int64_t{p.heads.value_heads} * splits;
  ParallelFor(p.rows.count * tasks, [&](int64_t i) {
    const int64_t row = i / tasks;
    const int64_t column = i % splits * columns;
    const HeadTask t = TaskOf(p, row, i % tasks / splits, column, columns);
    if (p.rows.slot(row) < 0) {
      ZeroOutput(t);
    } else {
      RunTask(t, t.tokens > recurrent_tokens);
    }
  });
}

}  // namespace

ChunkTile ScratchTile(int key_dim, int value_dim) {
  ChunkTile t = {.key_dim = key_dim, .value_dim = value_dim};
  const size_t keys = static_cast<size_t>(key_dim) * kChunk;
  const size_t values = static_cast<size_t>(value_dim) * kChunk;
  const size_t square = size_t{kChunk} * kChunk;
  const std::array<std::pair<float**, size_t>, 14> arrays = {{
      {&t.k, keys},
      {&t.q, keys},
      {&t.v, values},
      {&t.k_columns, keys},
      {&t.gamma, kChunk},
      {&t.beta, kChunk},
      {&t.decay, square},
      {&t.a, square},
      {&t.inverse, square},
      {&t.w, keys},
      {&t.u, values},
      {&t.state, static_cast<size_t>(key_dim) * value_dim},
      {&t.o, values},
      {&t.work, std::max(keys, values)},
  }};
  size_t total = 0;
  for (const auto& [array, size] : arrays) total += size;
  float* next = ThreadScratch(total);
  for (const auto& [array, size] : arrays) {
    *array = next;
    next += size;
  }
  return t;
}

void GatedDeltaRule(const GatedDeltaRuleParams& p) { Run(p, kRecurrentTokens); }

void FusedRecurrentGatedDeltaRule(const FusedRecurrentGatedDeltaRuleParams& p) {
  Run(p, INT64_MAX);
}

void ChunkGatedDeltaRule(const ChunkGatedDeltaRuleParams& p) { Run(p, 0); }

}  // namespace gdn::cpu
