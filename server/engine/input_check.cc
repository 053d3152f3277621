#include "server/engine/input_check.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string_view>

#include "kernels/finite.h"
#include "server/engine/shares.h"

namespace gdn {
namespace {

bool AreFinite(const char* data, size_t bytes, DType type) {
  std::atomic<bool> finite = true;
  InShares(bytes, [&](size_t begin, size_t end) {
    if (!AllFinite(data + begin, end - begin, type)) finite = false;
  });
  return finite;
}

// Reads pieces from front to back.
class Reader {
 public:
  explicit Reader(const std::vector<std::string_view>& pieces) : pieces_(pieces) { Settle(); }

  // Whether the next `bytes`, whole elements of `type`, are finite.
  bool NextAreFinite(size_t bytes, DType type) {
    bool finite = true;
    while (bytes > 0) {
      const size_t here = std::min(bytes, pieces_[piece_].size() - at_);
      const size_t whole = here / SizeOf(type) * SizeOf(type);
      finite = finite && AreFinite(pieces_[piece_].data() + at_, whole, type);
      Skip(whole);
      bytes -= whole;
      if (whole == here) continue;
      finite = finite && SplitIsFinite(type);
      bytes -= SizeOf(type);
    }
    return finite;
  }

  void Skip(size_t bytes) {
    while (bytes > 0) {
      const size_t here = std::min(bytes, pieces_[piece_].size() - at_);
      at_ += here;
      bytes -= here;
      Settle();
    }
  }

 private:
  // An element that lies in more than one piece.
  bool SplitIsFinite(DType type) {
    std::array<char, sizeof(float)> element = {};
    for (size_t i = 0; i < SizeOf(type); ++i) {
      element[i] = pieces_[piece_][at_];
      Skip(1);
    }
    return AllFinite(element.data(), SizeOf(type), type);
  }

  // To the next piece with bytes, where this one has none left.
  void Settle() {
    while (piece_ < pieces_.size() && at_ == pieces_[piece_].size()) {
      ++piece_;
      at_ = 0;
    }
  }

  const std::vector<std::string_view>& pieces_;
  size_t piece_ = 0;
  size_t at_ = 0;
};

}  // namespace

std::vector<uint32_t> NonFiniteRows(const StepRequest& request,
                                    const std::vector<InputTensor>& tensors) {
  std::vector<uint32_t> rows;
  if (request.synthetic_seed != 0) return rows;
  Reader reader(request.input);
  for (const InputTensor& tensor : tensors) {
    for (size_t row = 0; row < request.rows(); ++row) {
      const size_t bytes = request.tokens(row) * tensor.row_bytes();
      if (request.padding(row)) {
        reader.Skip(bytes);
      } else if (!reader.NextAreFinite(bytes, tensor.type)) {
        rows.push_back(static_cast<uint32_t>(row));
      }
    }
  }
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

}  // namespace gdn
