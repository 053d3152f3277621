#include "server/service/message.h"

#include <grpc/slice.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/finite.h"
#include "kernels/pieces.h"
#include "kernels/stream_copy.h"
#include "server/engine/shares.h"

namespace gdn {

std::shared_ptr<ReceivedMessage> Receive(const grpc::ByteBuffer& buffer) {
  auto message = std::make_shared<ReceivedMessage>();
  if (!buffer.Dump(&message->slices).ok()) return nullptr;
  message->pieces.reserve(message->slices.size());
  for (const grpc::Slice& slice : message->slices) {
    message->pieces.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return message;
}

namespace {

// A block that a slice is made of.
struct Block {
  std::shared_ptr<HostPool> pool;
  std::byte* data;
  size_t bytes;
};

void ReturnBlock(void* user_data) {
  const std::unique_ptr<Block> block(static_cast<Block*>(user_data));
  block->pool->Return(block->data, block->bytes);
}

// Whether the elements that end in `bytes` are finite, which were copied to `to` behind those
// before them. Looks there at the one that began before.
bool EndFinite(std::string_view bytes, const std::byte* to, DType type) {
  const size_t element = SizeOf(type);
  const size_t first = (element - reinterpret_cast<uintptr_t>(to) % element) % element;
  if (bytes.size() < first) return true;
  const bool split_finite = first == 0 || AllFinite(to + first - element, element, type);
  const size_t whole = (bytes.size() - first) / element * element;
  return AllFinite(bytes.data() + first, whole, type) && split_finite;
}

// Copies bytes [begin, end) of the pieces to the same place of `block`; whether they are finite,
// where `type` says what they are.
bool CopyAndLook(const std::vector<std::string_view>& pieces, size_t begin, size_t end,
                 std::optional<DType> type, std::byte* block) {
  constexpr size_t kAtOnce = 32 << 10;  // is looked at in the nearest cache
  bool finite = type.has_value();
  std::byte* to = block + begin;
  VisitPieces(pieces, begin, end - begin, [&](std::string_view piece) {
    for (; !piece.empty(); piece.remove_prefix(std::min(piece.size(), kAtOnce))) {
      const std::string_view part = piece.substr(0, kAtOnce);
      StreamCopy(to, part.data(), part.size());
      finite = finite && EndFinite(part, to, *type);
      to += part.size();
    }
  });
  StreamFence();
  return finite;
}

}  // namespace

OutputBuffer AllocateOutput(const std::shared_ptr<HostPool>& pool, size_t bytes) {
  if (std::byte* data = pool == nullptr ? nullptr : pool->Take(bytes); data != nullptr) {
    auto slice =
        std::make_shared<grpc::Slice>(data, bytes, ReturnBlock, new Block{pool, data, bytes});
    return {std::move(slice), data, bytes, /*direct=*/true};
  }
  auto slice = std::make_shared<grpc::Slice>(grpc_slice_malloc(bytes), grpc::Slice::STEAL_REF);
  auto* data = reinterpret_cast<std::byte*>(const_cast<uint8_t*>(slice->begin()));
  return {std::move(slice), data, bytes, /*direct=*/false};
}

void GatherInput(const std::shared_ptr<HostPool>& pool, std::optional<DType> type, SpareHand* hand,
                 Step* step) {
  constexpr size_t kLeast = 64 << 10;
  constexpr size_t kMany = 8 << 20;  // so many that threads are begun for them
  StepRequest& request = step->request;
  const size_t bytes = request.input_bytes();
  std::byte* block = pool == nullptr || bytes < kLeast ? nullptr : pool->Take(bytes);
  if (block == nullptr) return;
  std::atomic<bool> finite = type.has_value();
  const auto copy = [&](size_t begin, size_t end) {
    if (!CopyAndLook(request.input, begin, end, type, block)) finite = false;
  };
  bytes < kMany ? hand->Share(bytes, copy) : InShares(bytes, copy);
  step->known_finite = finite;
  request.input = {{reinterpret_cast<const char*>(block), bytes}};
  request.direct_input = true;
  step->message = std::shared_ptr<void>(
      block, [pool, bytes](void* data) { pool->Return(static_cast<std::byte*>(data), bytes); });
}

grpc::ByteBuffer ToByteBuffer(const std::string& header, const OutputBuffer& output) {
  const grpc::Slice slices[2] = {
      grpc::Slice(header),
      output.size > 0 ? *std::static_pointer_cast<grpc::Slice>(output.owner) : grpc::Slice()};
  return {slices, output.size > 0 ? size_t{2} : size_t{1}};
}

bool Parse(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite* message) {
  grpc::Slice slice;
  return buffer.DumpToSingleSlice(&slice).ok() &&
         message->ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message) {
  return ToByteBuffer(message.SerializeAsString());
}

}  // namespace gdn
