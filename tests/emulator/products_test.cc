// Matrices of a warp and products of a warpgroup, against plain loops.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/device/warpgroup.cuh"
#include "tests/emulator/runs.h"

namespace gdn::emulator {
namespace {

// Small integers, so that every sum is exact.
struct Matrix {
  Matrix(int rows, int columns, int seed = 0) : columns(columns), x(rows * columns) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((seed + 5 * i) % 13) - 6.0f;
  }
  float& at(int i, int j) { return x[static_cast<size_t>(i * columns + j)]; }

  int columns;
  std::vector<float> x;
};

// Of a [m, k] and b [k, n].
Matrix Product(Matrix a, Matrix b) {
  const int rows = static_cast<int>(a.x.size()) / a.columns;
  Matrix product(rows, b.columns);
  for (int m = 0; m < rows; ++m) {
    for (int n = 0; n < b.columns; ++n) {
      product.at(m, n) = 0;
      for (int k = 0; k < a.columns; ++k) product.at(m, n) += a.at(m, k) * b.at(k, n);
    }
  }
  return product;
}

template <typename T>
class Products : public ::testing::Test {};
using Types = ::testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(Products, Types);

TYPED_TEST(Products, OfAWarp) {
  Matrix a(16, 16, 1);
  Matrix b(16, 8, 2);
  Matrix d(16, 8);
  const auto of_a = [&a](int m, int k) {
    return cuda::PackPair<TypeParam>(a.at(m, k), a.at(m, k + 1));
  };
  const auto of_b = [&b](int k, int n) {
    return cuda::PackPair<TypeParam>(b.at(k, n), b.at(k + 1, n));
  };
  const auto kernel = [&] {
    const int g = LaneOf() / 4;
    const int c = LaneOf() % 4 * 2;
    float r[4] = {};
    cuda::Mma<TypeParam>(r, of_a(g, c), of_a(g + 8, c), of_a(g, c + 8), of_a(g + 8, c + 8),
                         of_b(c, g), of_b(c + 8, g));
    for (int i = 0; i < 4; ++i) d.at(g + i / 2 * 8, c + i % 2) = r[i];
  };
  EXPECT_EQ(RunKernel(1, 32, kernel), "");
  EXPECT_EQ(d.x, Product(a, b).x);
}

TEST(WarpProducts, OfTf32DropLowBits) {
  Matrix a(16, 8, 1);
  Matrix b(8, 8, 2);
  Matrix d(16, 8);
  const float low = 1.0f + 0x1p-12f;  // a bit that tf32 does not have
  const auto kernel = [&] {
    const int g = LaneOf() / 4;
    const int t = LaneOf() % 4;
    float r[4] = {};
    cuda::MmaTf32(r, low * a.at(g, t), low * a.at(g + 8, t), low * a.at(g, t + 4),
                  low * a.at(g + 8, t + 4), b.at(t, g), b.at(t + 4, g));
    for (int i = 0; i < 4; ++i) d.at(g + i / 2 * 8, t * 2 + i % 2) = r[i];
  };
  EXPECT_EQ(RunKernel(1, 32, kernel), "");
  EXPECT_EQ(d.x, Product(a, b).x);
}

// Four matrices in shared memory, rows side by side, element (i, j) of matrix m being 64m + 8i + j.
// Whether registers and memory are what the other is made into.
TEST(WarpProducts, MatricesToRegistersAndBack) {
  int wrong = 0;
  const auto kernel = [&wrong](bool transposed) {
    auto* x = DynamicShared<uint16_t>();
    const int lane = LaneOf();
    for (int j = 0; j < 8; ++j) x[8 * lane + j] = static_cast<uint16_t>(8 * lane + j);
    __syncwarp();
    const uint32_t row = cuda::SharedAddress(x + 8 * lane);
    const uint4 r = transposed ? cuda::LoadMatricesTransposed(row) : cuda::LoadMatrices(row);
    const uint32_t registers[] = {r.x, r.y, r.z, r.w};
    for (uint32_t m = 0; m < 4; ++m) {
      const uint32_t i = lane / 4;
      const uint32_t j = lane % 4 * 2;
      const uint32_t low = 64 * m + (transposed ? 8 * j + i : 8 * i + j);
      wrong += registers[m] != (low | (low + (transposed ? 8 : 1)) << 16) ? 1 : 0;
    }
    __syncwarp();
    for (int j = 0; j < 8; ++j) x[8 * lane + j] = 0;
    __syncwarp();
    transposed ? cuda::StoreMatricesTransposed(row, r) : cuda::StoreMatrices(row, r);
    __syncwarp();
    for (int j = 0; j < 8; ++j) wrong += x[8 * lane + j] != 8 * lane + j ? 1 : 0;
  };
  for (const bool transposed : {false, true}) {
    EXPECT_EQ(RunKernel(1, 32, [&kernel, transposed] { kernel(transposed); }), "");
    EXPECT_EQ(wrong, 0) << transposed;
  }
}

TEST(WarpProducts, TransposeOfAMatrix) {
  int wrong = 0;
  const auto kernel = [&wrong] {
    const uint32_t i = LaneOf() / 4;
    const uint32_t j = LaneOf() % 4 * 2;
    const uint32_t r = cuda::TransposeMatrix((8 * i + j) | (8 * i + j + 1) << 16);
    wrong += r != ((8 * j + i) | (8 * (j + 1) + i) << 16) ? 1 : 0;
  };
  EXPECT_EQ(RunKernel(1, 32, kernel), "");
  EXPECT_EQ(wrong, 0);
}

// ---- of a warpgroup

// Where a descriptor has element `column` of row `row`: 128 bytes a row, pieces permuted, and 64
// columns further 8192 bytes.
template <typename T>
void Put(unsigned char* at, int row, int column, float x) {
  const int piece = column % 64 / 8 ^ row % 8;
  const uint16_t bits = Bits<T>(x);
  std::memcpy(at + column / 64 * 8192 + row * 128 + piece * 16 + column % 8 * 2, &bits, 2);
}

// The thread's part of a [64, 16].
template <typename T>
uint4 Registers(Matrix& a) {
  const auto pair = [&a](int m, int k) { return cuda::PackPair<T>(a.at(m, k), a.at(m, k + 1)); };
  const int m = static_cast<int>(threadIdx.x) / 32 * 16 + LaneOf() / 4;
  const int k = LaneOf() % 4 * 2;
  return {pair(m, k), pair(m + 8, k), pair(m, k + 8), pair(m + 8, k + 8)};
}

template <int N>
void Take(const float (&r)[N], Matrix& d) {
  for (int i = 0; i < N; ++i) {
    const int m = static_cast<int>(threadIdx.x) / 32 * 16 + LaneOf() / 4 + i / 2 % 2 * 8;
    d.at(m, i / 4 * 8 + LaneOf() % 4 * 2 + i % 2) = r[i];
  }
}

// a [64, 16] times b [16, N] on top of d; b's rows are n, 32 bytes into them, or k.
template <typename T, int kRegisters, bool kRowsAreK, bool kAdd, bool kShared, typename F>
void CheckWarpgroup(F&& multiply) {
  constexpr int kColumns = 2 * kRegisters;
  Matrix a(64, 16, 1);
  Matrix b(16, kColumns, 2);
  Matrix d(64, kColumns);
  const auto kernel = [&] {
    auto* of_b = DynamicShared<unsigned char>();
    unsigned char* of_a = of_b + (16 << 10);
    for (int i = static_cast<int>(threadIdx.x); i < 16 * kColumns; i += 128) {
      const int k = i / kColumns;
      const int n = i % kColumns;
      kRowsAreK ? Put<T>(of_b, k, n, b.at(k, n)) : Put<T>(of_b, n, k + 16, b.at(k, n));
    }
    for (int i = static_cast<int>(threadIdx.x); i < 64 * 16; i += 128) {
      Put<T>(of_a, i / 16, i % 16, a.at(i / 16, i % 16));
    }
    __syncthreads();
    float r[kRegisters];
    for (float& x : r) x = 1000.0f;
    const uint32_t address = cuda::SharedAddress(of_b);
    const uint64_t right = kRowsAreK ? cuda::RowsAreK(address) : cuda::RowsAreN(address + 32);
    if constexpr (kShared) {
      multiply(r, cuda::RowsAreN(cuda::SharedAddress(of_a)), right);
    } else {
      multiply(r, Registers<T>(a), right);
    }
    cuda::WarpgroupCommit();
    cuda::WarpgroupWait();
    Take(r, d);
  };
  EXPECT_EQ(RunKernel(1, 128, kernel), "");
  Matrix expected = Product(a, b);
  for (float& x : expected.x) x += kAdd ? 1000.0f : 0.0f;
  EXPECT_EQ(d.x, expected.x) << kColumns << " columns";
}

template <typename T, bool kAdd>
void CheckAllForms() {
  const auto multiply = [](auto& r, auto a, uint64_t b) { cuda::WarpgroupMma<T, kAdd>(r, a, b); };
  CheckWarpgroup<T, 16, false, kAdd, false>(multiply);
  CheckWarpgroup<T, 32, false, kAdd, false>(multiply);
  CheckWarpgroup<T, 64, true, kAdd, false>(multiply);
  CheckWarpgroup<T, 32, true, kAdd, false>(
      [](auto& r, auto a, uint64_t b) { cuda::WarpgroupMmaRowsAreK<T, kAdd>(r, a, b); });
  CheckWarpgroup<T, 32, false, kAdd, true>(
      [](auto& r, auto a, uint64_t b) { cuda::WarpgroupMmaShared<T, kAdd>(r, a, b); });
}

TYPED_TEST(Products, OfAWarpgroup) {
  CheckAllForms<TypeParam, true>();
  CheckAllForms<TypeParam, false>();
}

// One of two groups of products, or none, is waited for before its operand is overwritten; the
// other has an operand of its own.
bool OperandsAreKept(bool wait) {
  using T = __nv_bfloat16;
  Matrix a(64, 16, 1);
  Matrix b(16, 64, 2);
  Matrix d(64, 64);
  const std::string failure = RunKernel(1, 128, [&, wait] {
    auto* first = DynamicShared<unsigned char>();
    unsigned char* second = first + (16 << 10);
    for (int i = static_cast<int>(threadIdx.x); i < 16 * 64; i += 128) {
      Put<T>(first, i / 64, i % 64, b.at(i / 64, i % 64));
      Put<T>(second, i / 64, i % 64, 0.0f);
    }
    __syncthreads();
    float r[32] = {};
    cuda::WarpgroupMmaRowsAreK<T>(r, Registers<T>(a), cuda::RowsAreK(cuda::SharedAddress(first)));
    cuda::WarpgroupCommit();
    cuda::WarpgroupMmaRowsAreK<T>(r, Registers<T>(a), cuda::RowsAreK(cuda::SharedAddress(second)));
    cuda::WarpgroupCommit();
    if (wait) cuda::WarpgroupWait<1>();
    Put<T>(first, 3, 7, 100.0f);
    cuda::WarpgroupWait();
    Take(r, d);
  });
  return failure.empty() && d.x == Product(a, b).x;
}

TEST(WarpgroupProducts, AnOperandIsOverwrittenOnceItsProductIsDone) {
  EXPECT_EQ(Misses([] { return OperandsAreKept(true); }), 0);
  EXPECT_GT(Misses([] { return OperandsAreKept(false); }), 0);
}

TEST(WarpgroupProducts, ThatNotAllThreadsAskForHang) {
  const std::string failure = RunKernel(1, 128, [] {
    float r[32] = {};
    if (threadIdx.x >= 96) return;
    cuda::WarpgroupMma<__half>(r, uint4{}, cuda::RowsAreN(0));
    cuda::WarpgroupCommit();
    cuda::WarpgroupWait();
  });
  EXPECT_NE(failure.find("warp 2: 32 lanes for the warpgroup"), std::string::npos) << failure;
}

}  // namespace
}  // namespace gdn::emulator
