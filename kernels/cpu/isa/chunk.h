// The gated delta rule chunk by chunk, in the WY form: the steps of the chunked ops on one chunk of
// one head, and all of them in a row. Everything is fp32.
#pragma once

#include "kernels/cpu/isa/recurrent.h"
#include "kernels/cpu/isa/tile.h"

namespace gdn::cpu {
namespace {

// c [rows, columns] = factor * c + a · b. c and b by panels or c dense: element (i, j) of c is at
// (j / panel) * c_panel + i * c_stride + j % panel; panel p of b begins at p * b_panel. With
// `lower_a` a is lower triangular, and what lies right of its diagonal is not multiplied; with
// `lower_c` tiles of c that lie right of its diagonal are left as they are.
template <typename A>
struct SmallProduct {
  int64_t rows;
  int64_t columns;
  int64_t depth;
  A a;
  const float* b;
  int64_t b_panel;
  float* c;
  int64_t c_stride;
  int64_t c_panel;
  float factor;
  bool lower_a = false;
  bool lower_c = false;
};

template <typename A = RowOperand>
inline void Multiply(const SmallProduct<A>& p) {
  const TileCut cut(p.rows);
  for (int64_t panel = 0; panel * kPanel < p.columns; ++panel) {
    for (int64_t tile = 0; tile < cut.count; ++tile) {
      const int64_t row = cut.begin(tile);
      const int rows = cut.rows(tile);
      if (p.lower_c && panel * kPanel >= row + rows) continue;
      const int64_t depth = p.lower_a ? row + rows : p.depth;
      TileOf(rows, depth, p.a.from(row), p.b + panel * p.b_panel,
             p.c + panel * p.c_panel + row * p.c_stride, p.c_stride, p.factor);
    }
  }
}

// y by panels [columns / panel][rows][panel] = factor[i] * x [rows, columns]; y's panels hold
// `y_rows` rows. No factor: 1.
inline void ToPanels(float* y, int64_t y_rows, const float* x, int64_t rows, int64_t columns,
                     const float* factor) {
  for (int64_t i = 0; i < rows; ++i) {
    const float f = factor == nullptr ? 1.0f : factor[i];
    for (int64_t j = 0; j < columns; j += kLanes) {
      float* to = y + (j / kPanel) * y_rows * kPanel + i * kPanel + j % kPanel;
      StoreV(to, LoadV(x + i * columns + j) * f);
    }
  }
}

// y by panels [columns / panel][rows][panel] with y(i, j) = x(j, i), x [columns, rows]; columns of
// y up to `padded` are zero.
template <typename T>
inline void TransposeToPanels(float* y, const T* x, int64_t rows, int64_t columns, int64_t padded) {
  float line[kMaxHeadDim];
  for (int64_t j = 0; j < padded; ++j) {
    float* to = y + (j / kPanel) * rows * kPanel + j % kPanel;
    if (j < columns) {
      Copy(line, x + j * rows, rows);
    } else {
      for (int64_t i = 0; i < rows; ++i) line[i] = 0.0f;
    }
    for (int64_t i = 0; i < rows; ++i) to[i * kPanel] = line[i];
  }
}

template <typename T>
inline void TransposeFromPanels(T* x, const float* y, int64_t rows, int64_t columns) {
  float line[kMaxHeadDim];
  for (int64_t j = 0; j < columns; ++j) {
    const float* from = y + (j / kPanel) * rows * kPanel + j % kPanel;
    for (int64_t i = 0; i < rows; ++i) line[i] = from[i * kPanel];
    Copy(x + j * rows, line, rows);
  }
}

// decay_ij = exp(gamma_i - gamma_j) for j <= i, 0 for j > i; k_columns = kᵀ
inline void ChunkPrepare(const ChunkTile& t) {
  TransposeToPanels(t.k_columns, t.k, t.key_dim, t.n, kChunk);
  VecF lane;
  for (int64_t i = 0; i < kLanes; ++i) lane[i] = static_cast<float>(i);
  float gamma[kChunk] = {};
  for (int64_t i = 0; i < t.n; ++i) gamma[i] = t.gamma[i];
  for (int64_t i = 0; i < t.n; ++i) {
    for (int64_t j = 0; j < kChunk; j += kLanes) {
      const VecF x = Exp(gamma[i] - LoadV(gamma + j));
      StoreV(t.decay + i * kChunk + j,
             Select(lane + static_cast<float>(j) <= static_cast<float>(i), x, VecF{}));
    }
  }
}

// y [n, kChunk] = (x · kᵀ) ⊙ decay
inline void DecayedDots(const ChunkTile& t, const float* x, float* y) {
  Multiply({.rows = t.n,
            .columns = t.n,
            .depth = t.key_dim,
            .a = {x, t.key_dim},
            .b = t.k_columns,
            .b_panel = int64_t{t.key_dim} * kPanel,
            .c = y,
            .c_stride = kChunk,
            .c_panel = kPanel,
            .factor = 0.0f,
            .lower_c = true});
  for (int64_t i = 0; i < t.n; ++i) {
    for (int64_t j = 0; j < kChunk; j += kLanes) {
      float* p = y + i * kChunk + j;
      const VecF decay = LoadV(t.decay + i * kChunk + j);
      StoreV(p, Select(decay == 0.0f, VecF{}, decay * LoadV(p)));
    }
  }
}

// A_ij = beta_i * (k_i · k_j) * exp(gamma_i - gamma_j) for i > j, else 0
inline void ChunkKkt(const ChunkTile& t) {
  DecayedDots(t, t.k, t.a);
  for (int64_t i = 0; i < t.n; ++i) {
    float* row = t.a + i * kChunk;
    for (int64_t j = 0; j < kChunk; j += kLanes) StoreV(row + j, LoadV(row + j) * t.beta[i]);
    row[i] = 0.0f;
  }
}

// inverse = (I + A)^-1 row by row: inverse_i = e_i - sum over j < i of A_ij * inverse_j
inline void ChunkSolve(const ChunkTile& t) {
  constexpr int kVectors = kChunk / kLanes;
  for (int64_t i = 0; i < t.n; ++i) {
    VecF sum[kVectors] = {};
    for (int64_t j = 0; j < i; ++j) {
      const VecF a = Broadcast(t.a[i * kChunk + j]);
#pragma GCC unroll 16
      for (int64_t c = 0; c < kVectors; ++c) {
        sum[c] -= a * LoadV(t.inverse + j * kChunk + c * kLanes);
      }
    }
    for (int64_t c = 0; c < kVectors; ++c) StoreV(t.inverse + i * kChunk + c * kLanes, sum[c]);
    t.inverse[i * kChunk + i] = 1.0f;
  }
}

// w_i = -sum_j inverse_ij * beta_j * exp(gamma_j) * k_j;  u_i = sum_j inverse_ij * beta_j * v_j
inline void ChunkWU(const ChunkTile& t) {
  float factor[kChunk] = {};
  for (int64_t i = 0; i < t.n; ++i) factor[i] = -t.beta[i] * Exp(t.gamma[i]);
  ToPanels(t.work, kChunk, t.k, t.n, t.key_dim, factor);
  const RowOperand inverse = {t.inverse, kChunk};
  Multiply({.rows = t.n,
            .columns = t.key_dim,
            .depth = t.n,
            .a = inverse,
            .b = t.work,
            .b_panel = kChunk * kPanel,
            .c = t.w,
            .c_stride = t.key_dim,
            .c_panel = kPanel,
            .factor = 0.0f,
            .lower_a = true});
  ToPanels(t.work, kChunk, t.v, t.n, t.value_dim, t.beta);
  Multiply({.rows = t.n,
            .columns = t.value_dim,
            .depth = t.n,
            .a = inverse,
            .b = t.work,
            .b_panel = kChunk * kPanel,
            .c = t.u,
            .c_stride = kPanel,
            .c_panel = kChunk * kPanel,
            .factor = 0.0f,
            .lower_a = true});
}

// u becomes v_new = u - w S. The state stays that before the chunk.
inline void ChunkVNew(const ChunkTile& t) {
  Multiply({.rows = t.n,
            .columns = t.value_dim,
            .depth = t.key_dim,
            .a = {t.w, t.key_dim},
            .b = t.state,
            .b_panel = int64_t{t.key_dim} * kPanel,
            .c = t.u,
            .c_stride = kPanel,
            .c_panel = kChunk * kPanel,
            .factor = 1.0f});
}

// S = exp(gamma_last) * S + sum_i k_i ⊗ (v_new_i * exp(gamma_last - gamma_i))
inline void ChunkState(const ChunkTile& t) {
  const float* decay = t.decay + int64_t{t.n - 1} * kChunk;
  for (int64_t panel = 0; panel * kPanel < t.value_dim; ++panel) {
    for (int64_t i = 0; i < t.n; ++i) {
      const int64_t at = panel * kChunk * kPanel + i * kPanel;
      StoreV(t.work + at, LoadV(t.u + at) * decay[i]);
      StoreV(t.work + at + kLanes, LoadV(t.u + at + kLanes) * decay[i]);
    }
  }
  Multiply<ColumnOperand>({.rows = t.key_dim,
                           .columns = t.value_dim,
                           .depth = t.n,
                           .a = {t.k, t.key_dim},
                           .b = t.work,
                           .b_panel = kChunk * kPanel,
                           .c = t.state,
                           .c_stride = kPanel,
                           .c_panel = int64_t{t.key_dim} * kPanel,
                           .factor = Exp(t.gamma[t.n - 1])});
}

// o_i = exp(gamma_i) * Sᵀ q_i + sum over j <= i of exp(gamma_i - gamma_j) * (q_i · k_j) * v_new_j,
// S being the state before the chunk and q scaled. Overwrites q and a.
inline void ChunkO(const ChunkTile& t) {
  DecayedDots(t, t.q, t.a);
  for (int64_t i = 0; i < t.n; ++i) {
    const float factor = Exp(t.gamma[i]);
    float* q = t.q + i * t.key_dim;
    for (int64_t c = 0; c < t.key_dim; c += kLanes) StoreV(q + c, LoadV(q + c) * factor);
  }
  Multiply({.rows = t.n,
            .columns = t.value_dim,
            .depth = t.key_dim,
            .a = {t.q, t.key_dim},
            .b = t.state,
            .b_panel = int64_t{t.key_dim} * kPanel,
            .c = t.o,
            .c_stride = t.value_dim,
            .c_panel = kPanel,
            .factor = 0.0f});
  Multiply({.rows = t.n,
            .columns = t.value_dim,
            .depth = t.n,
            .a = {t.a, kChunk},
            .b = t.u,
            .b_panel = kChunk * kPanel,
            .c = t.o,
            .c_stride = t.value_dim,
            .c_panel = kPanel,
            .factor = 1.0f,
            .lower_a = true});
}

// q, k, v, beta and the prefix sums of g of the chunk that begins at token `begin`.
inline void LoadChunk(const HeadTask& t, int64_t begin, ChunkTile& tile) {
  tile.n = static_cast<int>(t.tokens - begin < kChunk ? t.tokens - begin : kChunk);
  float sum = 0.0f;
  for (int64_t i = 0; i < tile.n; ++i) {
    const int64_t token = begin + i;
    WithType(t.io, [&]<typename T>(TypeTag<T>) {
      LoadToken<T>(t, token, tile.q + i * t.key_dim, tile.k + i * t.key_dim,
                   tile.v + i * t.value_dim);
    });
    sum += t.g == nullptr ? 0.0f : t.g[token * t.gate_stride];
    tile.gamma[i] = sum;
    tile.beta[i] = t.beta == nullptr ? 1.0f : t.beta[token * t.gate_stride];
  }
}

// tile: the arrays, filled in here.
inline void Chunked(const HeadTask& t, ChunkTile tile) {
  const int64_t elements = int64_t{t.key_dim} * t.value_dim;
  if (t.state != nullptr && t.load_state) {
    WithStateType(t.state_type, [&]<typename S>(TypeTag<S>) {
      TransposeToPanels(tile.state, static_cast<const S*>(t.state), t.key_dim, t.value_dim,
                        t.value_dim);
    });
  } else {
    for (int64_t i = 0; i < elements; i += kLanes) StoreV(tile.state + i, VecF{});
  }
  const int64_t o_bytes = t.o_type == DType::kFp32 ? 4 : 2;
  for (int64_t begin = 0; begin < t.tokens; begin += kChunk) {
    LoadChunk(t, begin, tile);
    ChunkPrepare(tile);
    ChunkKkt(tile);
    ChunkSolve(tile);
    ChunkWU(tile);
    ChunkVNew(tile);
    ChunkO(tile);
    ChunkState(tile);
    for (int64_t i = 0; i < tile.n; ++i) {
      FromFloat(static_cast<char*>(t.o) + (begin + i) * t.o_stride * o_bytes, t.o_type,
                tile.o + i * t.value_dim, t.value_dim);
    }
  }
  if (t.state == nullptr) return;
  WithStateType(t.state_type, [&]<typename S>(TypeTag<S>) {
    TransposeFromPanels(static_cast<S*>(t.state), tile.state, t.key_dim, t.value_dim);
  });
}

}  // namespace
}  // namespace gdn::cpu
