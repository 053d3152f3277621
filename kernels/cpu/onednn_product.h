// Matrix products in bf16 by oneDNN, on CPUs with bf16 instructions (AVX-512 BF16, AMX).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace gdn::cpu {

// All products with matrices of one shape, in oneDNN's own packed form. Every primitive that Run
// will need is made by Create.
class OnednnProduct {
 public:
  // For up to `rows` rows. Null where the CPU has no bf16 instructions.
  static std::unique_ptr<OnednnProduct> Create(int64_t out, int64_t in, int64_t rows);
  ~OnednnProduct();

  size_t packed_bytes() const;
  void Pack(void* packed, const void* w) const;

  // y [rows, out] = x [rows, in] · wᵀ, dense, bf16. Rows beyond `rows` may be read and written too:
  // x and y have room for the `rows` of Create.
  void Run(const void* packed, const void* x, int64_t rows, void* y) const;

 private:
  struct Primitives;
  explicit OnednnProduct(std::unique_ptr<Primitives> primitives);

  std::unique_ptr<Primitives> primitives_;
};

}  // namespace gdn::cpu
