// How messages of half a megabyte travel well: the arguments of servers and channels, and malloc.
#pragma once

#include <cstdint>

#include "grpcpp/server_builder.h"
#include "grpcpp/support/channel_arguments.h"

namespace gdn {

// Large frames, windows and reads, one listener a port.
void TuneServer(int64_t max_message_bytes, grpc::ServerBuilder* builder);
// The same for a client's channel.
void TuneChannel(grpc::ChannelArguments* arguments);
// Keeps freed message buffers in the process: otherwise each message is mapped, faulted in and
// unmapped anew, which costs more than copying it. Call it first in main.
void TuneMalloc();

}  // namespace gdn
