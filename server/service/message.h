// Between gRPC's byte buffers and what the codec reads and writes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"
#include "kernels/dtype.h"
#include "kernels/host_pool.h"
#include "server/engine/spare_hand.h"
#include "server/wire/step.h"

namespace gdn {

// A received message: its slices, and their bytes as the codec takes them.
struct ReceivedMessage {
  std::vector<grpc::Slice> slices;
  absl::InlinedVector<std::string_view, 4> pieces;
};
// Null where the message cannot be read (a broken compressed one).
std::shared_ptr<ReceivedMessage> Receive(const grpc::ByteBuffer& buffer);

// Memory that ToByteBuffer sends without a copy: a block of `pool`, which is free again once all of
// it is sent, or where that is null or has none, memory as any other.
OutputBuffer AllocateOutput(const std::shared_ptr<HostPool>& pool, size_t bytes);

// Copies the step's input into a block of `pool`, so that the device reads it by itself, and lets
// go of the message that it came in. Leaves a small input where it is, which is sooner gathered
// with those of other steps, and one that the pool, which may be null, has no room for. With the
// `type` of all of the input it looks on the way, while its cache has the bytes, whether they are
// known_finite. Where `hand` has time it helps.
void GatherInput(const std::shared_ptr<HostPool>& pool, std::optional<DType> type, SpareHand* hand,
                 Step* step);

// `header` and then the bytes of `output`, which may be empty. Never an empty buffer, which gRPC
// does not take: an empty message is one empty slice.
grpc::ByteBuffer ToByteBuffer(const std::string& header, const OutputBuffer& output = {});

// Control messages, through the generated classes. False where the message does not parse.
bool Parse(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite* message);
grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message);

}  // namespace gdn
