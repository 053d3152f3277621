#include "server/message.h"

#include <grpc/slice.h>

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

OutputBuffer AllocateOutput(size_t bytes) {
  auto slice = std::make_shared<grpc::Slice>(grpc_slice_malloc(bytes), grpc::Slice::STEAL_REF);
  auto* data = reinterpret_cast<std::byte*>(const_cast<uint8_t*>(slice->begin()));
  return {std::move(slice), data, bytes};
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
