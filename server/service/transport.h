// How messages of half a megabyte travel well: the arguments of servers and channels, and what
// holds for the whole process.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/support/channel_arguments.h"

namespace gdn {

// What a peer may take.
struct TransportLimits {
  int64_t message_bytes = 4 << 20;
  int streams = 1024;                              // calls at a time of a connection
  int metadata_bytes = 8192;                       // of a call
  absl::Duration idle = absl::InfiniteDuration();  // a connection without calls is closed
};

// Large frames, windows and reads; the limits; an end to peers that connect and say nothing, or are
// no longer there.
void TuneServer(const TransportLimits& limits, grpc::ServerBuilder* builder);
// The same for a client's channel.
void TuneChannel(grpc::ChannelArguments* arguments);
// Lets gRPC's locks be: distributions build Abseil so that each lock taken is looked for in one
// graph of all locks. Call it first in main.
void TuneProcess();

}  // namespace gdn
