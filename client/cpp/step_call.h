// A step's messages with the tensor beside them, so that neither side copies it into a string.
#pragma once

#include <string>
#include <vector>

#include "gdn/v1/gdn_service.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace gdn::client {

// The answer to a step.
struct StepAnswer {
  v1::DecodeResponse header;        // slots, epochs, replayed_rows; without `output`
  std::vector<grpc::Slice> output;  // the tensor's bytes, in pieces

  size_t output_bytes() const;
  // Writes output_bytes() to `to`.
  void CopyOutput(void* to) const;
};

// A PrefillRequest or DecodeRequest: `header` serialized, its `input` empty, and the tensor.
grpc::ByteBuffer EncodeStep(const std::string& header, const grpc::Slice& input);

// A PrefillResponse or DecodeResponse; false where it is none.
bool DecodeAnswer(grpc::ByteBuffer* message, StepAnswer* answer);

}  // namespace gdn::client
