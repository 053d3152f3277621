// The steps of the chunked form as ops of their own: each chunk of each head is brought into a
// tile, run through one step and written back. The backend runs all steps on a tile at once
// (ChunkGatedDeltaRule).
#include <algorithm>
#include <cstring>

#include "kernels/cpu/delta_rule.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dtype.h"

namespace gdn::cpu {
namespace {

struct ChunkAt {
  int64_t row;
  int64_t begin;  // first token
  int n;          // tokens
};

ChunkAt Locate(const Rows& rows, const Chunks& chunks, int64_t chunk) {
  const int64_t row = chunks.chunk_indices[2 * chunk];
  const int64_t begin = rows.offsets[row] + chunks.chunk_indices[2 * chunk + 1] * kChunk;
  return {row, begin, static_cast<int>(std::min<int64_t>(kChunk, rows.offsets[row + 1] - begin))};
}

// A tensor [T, heads, dim] of which a tile holds one head.
struct Source {
  const void* data;
  DType type;
  int64_t stride;
  int64_t offset;  // of the head
  int dim;
};

void LoadRows(float* y, const Source& s, const ChunkAt& at) {
  for (int64_t i = 0; i < at.n; ++i) {
    const int64_t element = (at.begin + i) * s.stride + s.offset;
    BestKernels().to_float(
        y + i * s.dim,
        static_cast<const std::byte*>(s.data) + element * static_cast<int64_t>(SizeOf(s.type)),
        s.type, s.dim);
  }
}

void StoreRows(const Source& s, const float* x, const ChunkAt& at) {
  for (int64_t i = 0; i < at.n; ++i) {
    const int64_t element = (at.begin + i) * s.stride + s.offset;
    BestKernels().from_float(static_cast<std::byte*>(const_cast<void*>(s.data)) +
                                 element * static_cast<int64_t>(SizeOf(s.type)),
                             s.type, x + i * s.dim, s.dim);
  }
}

// Where element (i, j) of an array by panels with `rows` rows lies.
int64_t InPanels(int64_t rows, int64_t i, int64_t j) {
  const int64_t panel = BestKernels().panel;
  return j / panel * rows * panel + i * panel + j % panel;
}

// u by panels to and from its rows in `o`, of the same size.
void UToRows(const ChunkTile& t) {
  for (int i = 0; i < t.n; ++i) {
    for (int j = 0; j < t.value_dim; ++j) t.o[i * t.value_dim + j] = t.u[InPanels(kChunk, i, j)];
  }
}

void UFromRows(const ChunkTile& t) {
  for (int i = 0; i < t.n; ++i) {
    for (int j = 0; j < t.value_dim; ++j) t.u[InPanels(kChunk, i, j)] = t.o[i * t.value_dim + j];
  }
}

void LoadState(const ChunkTile& t, const void* state, DType type) {
  for (int v = 0; v < t.value_dim; ++v) {
    for (int k = 0; k < t.key_dim; ++k) {
      t.state[InPanels(t.key_dim, k, v)] = Load(state, type, int64_t{v} * t.key_dim + k);
    }
  }
}

void StoreState(const ChunkTile& t, void* state, DType type) {
  for (int v = 0; v < t.value_dim; ++v) {
    for (int k = 0; k < t.key_dim; ++k) {
      Store(state, type, int64_t{v} * t.key_dim + k, t.state[InPanels(t.key_dim, k, v)]);
    }
  }
}

void Negate(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = -x[i];
}

std::byte* Head(const void* data, DType type, int64_t index, int64_t elements) {
  return static_cast<std::byte*>(const_cast<void*>(data)) +
         index * elements * static_cast<int64_t>(SizeOf(type));
}

// What the steps have in common: the heads, and sources for one of them.
struct HeadView {
  Heads heads;
  int64_t head;

  int64_t key_head() const { return head / (heads.value_heads / heads.key_heads); }
  Source Key(const void* x, DType type, int64_t stride) const {
    return {x, type, stride, key_head() * heads.key_dim, heads.key_dim};
  }
  Source Value(const void* x, DType type, int64_t stride) const {
    return {x, type, stride, head * heads.value_dim, heads.value_dim};
  }
  // Dense [T, HV, dim].
  Source PerHead(const void* x, DType type, int dim) const {
    return {x, type, int64_t{heads.value_heads} * dim, head * dim, dim};
  }
};

// f(head view, chunk, tile) for every chunk of every head.
template <typename F>
void ForEachTile(const Rows& rows, const Chunks& chunks, const Heads& heads, F f) {
  ParallelFor(chunks.count * heads.value_heads, [&](int64_t i) {
    const ChunkAt at = Locate(rows, chunks, i / heads.value_heads);
    ChunkTile tile = ScratchTile(heads.key_dim, heads.value_dim);
    tile.n = at.n;
    f(HeadView{heads, i % heads.value_heads}, i / heads.value_heads, at, tile);
  });
}

}  // namespace

void ChunkLocalCumsum(const ChunkLocalCumsumParams& p) {
  const int64_t columns = int64_t{p.heads} * p.dim;
  ParallelFor(p.chunks.count, [&](int64_t chunk) {
    const ChunkAt at = Locate(p.rows, p.chunks, chunk);
    for (int64_t c = 0; c < columns; ++c) {
      float sum = 0.0f;
      for (int64_t t = at.begin; t < at.begin + at.n; ++t) {
        sum += p.g[t * columns + c];
        p.gamma[t * columns + c] = sum;
      }
    }
  });
}

void ChunkScaledDotKkt(const ChunkScaledDotKktParams& p) {
  ForEachTile(p.rows, p.chunks, p.heads,
              [&](const HeadView& head, int64_t, const ChunkAt& at, ChunkTile& t) {
                LoadRows(t.k, head.Key(p.k, p.io, p.k_stride), at);
                LoadRows(t.gamma, head.PerHead(p.gamma, DType::kFp32, 1), at);
                LoadRows(t.beta, head.PerHead(p.beta, DType::kFp32, 1), at);
                BestKernels().chunk_prepare(t);
                BestKernels().chunk_kkt(t);
                StoreRows(head.PerHead(p.a, DType::kFp32, kChunk), t.a, at);
              });
}

void SolveTril(const SolveTrilParams& p) {
  const Heads heads = {
      .key_heads = p.value_heads, .value_heads = p.value_heads, .key_dim = 0, .value_dim = 0};
  ForEachTile(p.rows, p.chunks, heads,
              [&](const HeadView& head, int64_t, const ChunkAt& at, ChunkTile& t) {
                LoadRows(t.a, head.PerHead(p.a, DType::kFp32, kChunk), at);
                BestKernels().chunk_solve(t);
                StoreRows(head.PerHead(p.inverse, DType::kFp32, kChunk), t.inverse, at);
              });
}

void RecomputeWU(const RecomputeWUParams& p) {
  ForEachTile(p.rows, p.chunks, p.heads,
              [&](const HeadView& head, int64_t, const ChunkAt& at, ChunkTile& t) {
                LoadRows(t.k, head.Key(p.k, p.io, p.k_stride), at);
                LoadRows(t.v, head.Value(p.v, p.io, p.v_stride), at);
                LoadRows(t.gamma, head.PerHead(p.gamma, DType::kFp32, 1), at);
                LoadRows(t.beta, head.PerHead(p.beta, DType::kFp32, 1), at);
                LoadRows(t.inverse, head.PerHead(p.inverse, DType::kFp32, kChunk), at);
                BestKernels().chunk_w_u(t);
                Negate(t.w, int64_t{t.n} * t.key_dim);
                UToRows(t);
                StoreRows(head.PerHead(p.w, p.mid, t.key_dim), t.w, at);
                StoreRows(head.PerHead(p.u, p.mid, t.value_dim), t.o, at);
              });
}

void ChunkDeltaH(const ChunkDeltaHParams& p) {
  const int64_t elements = int64_t{p.heads.value_dim} * p.heads.key_dim;
  ParallelFor(p.rows.count * p.heads.value_heads, [&](int64_t i) {
    const int64_t row = i / p.heads.value_heads;
    const HeadView head = {p.heads, i % p.heads.value_heads};
    if (p.rows.slot(row) < 0 || p.rows.offsets[row] == p.rows.offsets[row + 1]) return;
    ChunkTile t = ScratchTile(p.heads.key_dim, p.heads.value_dim);
    std::byte* state = p.ssm.data == nullptr
                           ? nullptr
                           : Head(p.ssm.data, p.ssm.type,
                                  p.rows.slot(row) * p.ssm.slot_stride + head.head * elements, 1);
    std::fill_n(t.state, elements, 0.0f);
    if (state != nullptr && p.rows.has_state(row)) LoadState(t, state, p.ssm.type);
    for (int64_t c = p.chunks.chunk_offsets[row]; c < p.chunks.chunk_offsets[row + 1]; ++c) {
      const ChunkAt at = Locate(p.rows, p.chunks, c);
      t.n = at.n;
      LoadRows(t.k, head.Key(p.k, p.io, p.k_stride), at);
      LoadRows(t.gamma, head.PerHead(p.gamma, DType::kFp32, 1), at);
      LoadRows(t.w, head.PerHead(p.w, p.mid, t.key_dim), at);
      LoadRows(t.o, head.PerHead(p.u, p.mid, t.value_dim), at);
      Negate(t.w, int64_t{t.n} * t.key_dim);
      UFromRows(t);
      StoreState(t, Head(p.h, p.mid, c * p.heads.value_heads + head.head, elements), p.mid);
      BestKernels().chunk_prepare(t);
      BestKernels().chunk_v_new(t);
      BestKernels().chunk_state(t);
      UToRows(t);
      StoreRows(head.PerHead(p.v_new, p.mid, t.value_dim), t.o, at);
    }
    if (state != nullptr) StoreState(t, state, p.ssm.type);
  });
}

void ChunkO(const ChunkOParams& p) {
  const int64_t elements = int64_t{p.heads.value_dim} * p.heads.key_dim;
  ForEachTile(p.rows, p.chunks, p.heads,
              [&](const HeadView& head, int64_t chunk, const ChunkAt& at, ChunkTile& t) {
                const Source o = head.Value(p.o, p.io, p.o_stride);
                std::fill_n(t.o, t.n * t.value_dim, 0.0f);
                if (p.rows.slot(at.row) < 0) return StoreRows(o, t.o, at);
                LoadRows(t.q, head.Key(p.q, p.io, p.q_stride), at);
                LoadRows(t.k, head.Key(p.k, p.io, p.k_stride), at);
                LoadRows(t.gamma, head.PerHead(p.gamma, DType::kFp32, 1), at);
                LoadRows(t.o, head.PerHead(p.v_new, p.mid, t.value_dim), at);
                UFromRows(t);
                LoadState(t, Head(p.h, p.mid, chunk * p.heads.value_heads + head.head, elements),
                          p.mid);
                for (int i = 0; i < t.n * t.key_dim; ++i) t.q[i] *= p.scale;
                BestKernels().chunk_prepare(t);
                BestKernels().chunk_o(t);
                StoreRows(o, t.o, at);
              });
}

}  // namespace gdn::cpu
