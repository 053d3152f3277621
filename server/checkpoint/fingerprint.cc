#include "server/checkpoint/fingerprint.h"

#include <cstdint>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace gdn {
namespace {

constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kBlocks = 16;

// FNV-1a, 64 bits.
class Digest {
 public:
  void Add(absl::string_view bytes) {
    for (const char c : bytes) {
      value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    }
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

std::string Describe(const Geometry& g) {
  return absl::StrCat(g.hidden_size, " ", g.key_heads, " ", g.value_heads, " ", g.key_dim, " ",
                      g.value_dim, " ", g.conv_width, " ", static_cast<int>(g.conv_activation), " ",
                      static_cast<int>(g.gate), " ", g.qk_l2norm, " ", g.norm_eps, "\n");
}

absl::Status AddRange(const File& file, uint64_t offset, uint64_t bytes, Digest* digest) {
  std::string block(bytes, '\0');
  absl::Status read = file.Read(offset, std::as_writable_bytes(std::span(block)));
  if (read.ok()) digest->Add(block);
  return read;
}

absl::Status AddContent(const TensorSource& t, Digest* digest) {
  if (t.bytes() <= kBlocks * kBlockBytes) return AddRange(*t.file, t.offset, t.bytes(), digest);
  const uint64_t last = t.bytes() - kBlockBytes;
  for (uint64_t i = 0; i < kBlocks; ++i) {
    const uint64_t at = last / (kBlocks - 1) * i + (i == kBlocks - 1 ? last % (kBlocks - 1) : 0);
    absl::Status read = AddRange(*t.file, t.offset + at, kBlockBytes, digest);
    if (!read.ok()) return read;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> Fingerprint(const Geometry& g, std::span<const int> numbers,
                                        std::span<const LayerTensors> layers) {
  Digest digest;
  digest.Add(Describe(g));
  for (size_t i = 0; i < layers.size(); ++i) {
    for (size_t role = 0; role < kTensorRoles; ++role) {
      const auto& tensor = layers[i].by_role[role];
      if (!tensor) continue;
      digest.Add(absl::StrCat(numbers[i], " ", role, " ", static_cast<int>(tensor->type), " ",
                              tensor->rows, " ", tensor->columns, "\n"));
      if (absl::Status added = AddContent(*tensor, &digest); !added.ok()) return added;
    }
  }
  return absl::StrCat(absl::Hex(digest.value(), absl::kZeroPad16));
}

}  // namespace gdn
