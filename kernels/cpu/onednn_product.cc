#include "kernels/cpu/onednn_product.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

namespace gdn::cpu {
namespace {

using dnnl::matmul;
using dnnl::memory;

constexpr auto kBf16 = memory::data_type::bf16;

bool HasBf16() {
  constexpr auto kWanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kWanted) == kWanted;
}

memory::desc Dense(int64_t rows, int64_t columns) {
  return {{rows, columns}, kBf16, memory::format_tag::ab};
}

matmul::primitive_desc Describe(const dnnl::engine& engine, int64_t rows, int64_t out, int64_t in,
                                const memory::desc& weights) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, Dense(rows, in), weights, Dense(rows, out)};
#else
  return {matmul::desc(Dense(rows, in), weights, Dense(rows, out)), engine};
#endif
}

}  // namespace

struct OnednnProduct::Primitives {
  struct Sized {
    int64_t rows;
    matmul product;
  };

  int64_t out;
  int64_t in;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  mutable dnnl::stream stream{engine};
  memory::desc weights;
  std::vector<Sized> by_rows;  // ascending

  Primitives(int64_t outputs, int64_t inputs, int64_t rows) : out(outputs), in(inputs) {
    // The largest product decides how the weights are packed; the others take them as they are.
    const memory::desc any({in, out}, kBf16, memory::format_tag::any);
    weights = Describe(engine, rows, out, in, any).weights_desc();
    for (int64_t n = 1; n < rows; n += std::max<int64_t>(1, n / 2)) Add(n);
    Add(rows);
  }

  void Add(int64_t rows) {
    by_rows.push_back({rows, matmul(Describe(engine, rows, out, in, weights))});
  }

  const Sized& For(int64_t rows) const {
    return *std::find_if(by_rows.begin(), by_rows.end(),
                         [rows](const Sized& s) { return s.rows >= rows; });
  }
};

std::unique_ptr<OnednnProduct> OnednnProduct::Create(int64_t out, int64_t in, int64_t rows) {
  if (!HasBf16()) return nullptr;
  return std::unique_ptr<OnednnProduct>(
      new OnednnProduct(std::make_unique<Primitives>(out, in, rows)));
}

OnednnProduct::OnednnProduct(std::unique_ptr<Primitives> primitives)
    : primitives_(std::move(primitives)) {}

OnednnProduct::~OnednnProduct() = default;

size_t OnednnProduct::packed_bytes() const { return primitives_->weights.get_size(); }

void OnednnProduct::Pack(void* packed, const void* w) const {
  const Primitives& p = *primitives_;
  const memory::desc plain({p.in, p.out}, kBf16, memory::format_tag::ba);
  memory from(plain, p.engine, const_cast<void*>(w));
  memory to(p.weights, p.engine, packed);
  dnnl::reorder(from, to).execute(p.stream, from, to);
  p.stream.wait();
}

void OnednnProduct::Run(const void* packed, const void* x, int64_t rows, void* y) const {
  const Primitives& p = *primitives_;
  const Primitives::Sized& sized = p.For(rows);
  sized.product.execute(
      p.stream, {{DNNL_ARG_SRC, memory(Dense(sized.rows, p.in), p.engine, const_cast<void*>(x))},
                 {DNNL_ARG_WEIGHTS, memory(p.weights, p.engine, const_cast<void*>(packed))},
                 {DNNL_ARG_DST, memory(Dense(sized.rows, p.out), p.engine, y)}});
  p.stream.wait();
}

}  // namespace gdn::cpu
