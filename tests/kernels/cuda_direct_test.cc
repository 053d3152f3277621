// Tensors that the copy engines reach themselves, in pinned memory or on the device: the answers
// are those of the same batch in ordinary memory.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "kernels/cuda/backend/cuda_backend.h"
#include "kernels/cuda/backend/memory.h"
#include "tests/testing/layer_case.h"
#include "tests/testing/step.h"

namespace gdn::test {
namespace {

using cuda::Memory;

// Two parts, the first of one row, the second of the others, one of which is padding.
constexpr int64_t kOffsets[] = {0, 3, 4, 134};
constexpr int32_t kSlots[] = {2, kPadSlotId, 5};
constexpr uint8_t kNone[] = {0, 0, 0};

std::unique_ptr<Backend> Loaded(const BackendShape& shape) {
  auto backend = MakeCudaBackend(shape);
  EXPECT_TRUE(backend.ok()) << backend.status();
  for (int i = 0; i < shape.layers; ++i) {
    EXPECT_TRUE((*backend)->LoadLayer(i, RandomLayer(10 + i, shape).weights()).ok());
  }
  return *std::move(backend);
}

// Bytes of one part, in memory of either kind, and what is made of them.
struct PartMemory {
  PartMemory(Memory::Place place, std::span<const std::byte> bytes)
      : in(*Memory::Make(place, bytes.size())), out(*Memory::Make(place, bytes.size())) {
    EXPECT_EQ(cudaMemcpy(in.data(), bytes.data(), bytes.size(), cudaMemcpyDefault), cudaSuccess);
    piece = {reinterpret_cast<const char*>(in.data()), bytes.size()};
  }

  std::vector<std::byte> Answer() const {
    std::vector<std::byte> answer(out.size());
    EXPECT_EQ(cudaMemcpy(answer.data(), out.data(), answer.size(), cudaMemcpyDefault), cudaSuccess);
    return answer;
  }

  Memory in, out;
  std::string_view piece;
};

class CudaDirect : public ::testing::TestWithParam<Memory::Place> {
 protected:
  void SetUp() override {
    if (!CudaDevicePresent()) GTEST_SKIP() << "cuda cannot run here: no device";
    input_ = Tensor::Normal(rng_, shape_.io, kOffsets[3] * shape_.geometry.hidden_size);
    const auto cut = static_cast<size_t>(kOffsets[1] * shape_.geometry.hidden_size) * 4;
    bytes_[0] = input_.bytes().first(cut);
    bytes_[1] = input_.bytes().subspan(cut);
    for (int i = 0; i < 2; ++i) {
      pieces_[i] = {reinterpret_cast<const char*>(bytes_[i].data()), bytes_[i].size()};
      answers_[i].resize(bytes_[i].size());
    }
  }

  BatchPart Plain(int i) {
    BatchPart part;
    part.first_token = i == 0 ? 0 : kOffsets[1];
    part.tokens = i == 0 ? kOffsets[1] : kOffsets[3] - kOffsets[1];
    part.input = {&pieces_[i], 1};
    part.output = answers_[i].data();
    return part;
  }

  BatchPart Direct(int i, PartMemory& memory) {
    BatchPart part = Plain(i);
    part.input = {&memory.piece, 1};
    part.output = memory.out.data();
    part.direct_input = part.direct_output = true;
    return part;
  }

  void Run(const std::vector<BatchPart>& parts) {
    const std::unique_ptr<Backend> backend = Loaded(shape_);
    std::vector<RowFault> faults(3);
    ASSERT_TRUE(backend
                    ->Run({.offsets = kOffsets,
                           .slots = kSlots,
                           .has_initial_state = kNone,
                           .keep_answer = kNone,
                           .parts = parts},
                          faults)
                    .ok());
    for (const RowFault fault : faults) EXPECT_EQ(fault, RowFault::kNone);
  }

  const BackendShape shape_ = SmallShape();
  Rng rng_{3};
  Tensor input_;
  std::span<const std::byte> bytes_[2];
  std::string_view pieces_[2];
  std::vector<std::byte> answers_[2];
};

TEST_P(CudaDirect, AnswersAreThoseOfOrdinaryMemory) {
  Run({Plain(0), Plain(1)});
  PartMemory first(GetParam(), bytes_[0]), second(GetParam(), bytes_[1]);
  Run({Direct(0, first), Direct(1, second)});
  EXPECT_EQ(first.Answer(), answers_[0]);
  EXPECT_EQ(second.Answer(), answers_[1]);
}

TEST_P(CudaDirect, BesideAPartInOrdinaryMemory) {
  Run({Plain(0), Plain(1)});
  const std::vector<std::byte> expected = answers_[0];
  answers_[0].assign(expected.size(), std::byte{0xcc});
  PartMemory second(GetParam(), bytes_[1]);
  Run({Plain(0), Direct(1, second)});
  EXPECT_EQ(answers_[0], expected);
  EXPECT_EQ(second.Answer(), answers_[1]);
}

// As of a step that is cut, of which a tensor's tokens lie in one piece and the next one's
// elsewhere.
TEST_P(CudaDirect, InPieces) {
  Run({Plain(0), Plain(1)});
  PartMemory first(GetParam(), bytes_[0]), second(GetParam(), bytes_[1]);
  BatchPart part = Direct(1, second);
  const std::string_view pieces[] = {second.piece.substr(0, 100), second.piece.substr(100)};
  part.input = pieces;
  Run({Direct(0, first), part});
  EXPECT_EQ(second.Answer(), answers_[1]);
}

INSTANTIATE_TEST_SUITE_P(Places, CudaDirect,
                         ::testing::Values(Memory::Place::kPinned, Memory::Place::kDevice),
                         [](const auto& info) {
                           return info.param == Memory::Place::kPinned ? "pinned" : "device";
                         });

}  // namespace
}  // namespace gdn::test
