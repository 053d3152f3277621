#include "server/service/message.h"

#include <grpc/slice.h>

#include "kernels/pieces.h"
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

void GatherInput(const std::shared_ptr<HostPool>& pool, Step* step) {
  constexpr size_t kLeast = 64 << 10;
  StepRequest& request = step->request;
  const size_t bytes = request.input_bytes();
  std::byte* block = pool == nullptr || bytes < kLeast ? nullptr : pool->Take(bytes);
  if (block == nullptr) return;
  InShares(bytes, [&](size_t begin, size_t end) {
    CopyPieces(request.input, begin, end - begin, block + begin);
  });
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
