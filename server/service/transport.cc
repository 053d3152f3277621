#include "server/service/transport.h"

#include <grpc/impl/codegen/grpc_types.h>

#include <algorithm>
#include <limits>

#include "absl/synchronization/mutex.h"

namespace gdn {
namespace {

constexpr int kMaxFrameBytes = 1 << 20;
constexpr int kLookaheadBytes = 16 << 20;
constexpr int kReadChunkBytes = 64 << 10;
constexpr int kMaxReadChunkBytes = 4 << 20;
constexpr int kHandshakeMs = 10'000;
constexpr int kKeepaliveMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;

int AsInt(int64_t value) {
  return static_cast<int>(std::min<int64_t>(value, std::numeric_limits<int>::max()));
}

template <typename Set>
void Tune(const Set& set) {
  set(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kMaxFrameBytes);
  set(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookaheadBytes);
  set(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadChunkBytes);
  set(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, kReadChunkBytes);
  set(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, kMaxReadChunkBytes);
}

}  // namespace

void TuneServer(const TransportLimits& limits, grpc::ServerBuilder* builder) {
  const auto set = [builder](const char* name, int value) {
    builder->AddChannelArgument(name, value);
  };
  Tune(set);
  set(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.streams);
  set(GRPC_ARG_MAX_METADATA_SIZE, limits.metadata_bytes);
  set(GRPC_ARG_MAX_CONNECTION_IDLE_MS, AsInt(absl::ToInt64Milliseconds(limits.idle)));
  set(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  set(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->SetMaxReceiveMessageSize(AsInt(limits.message_bytes));
  builder->SetMaxSendMessageSize(-1);
}

void TuneChannel(grpc::ChannelArguments* arguments) {
  Tune([arguments](const char* name, int value) { arguments->SetInt(name, value); });
  arguments->SetMaxReceiveMessageSize(-1);
  arguments->SetMaxSendMessageSize(-1);
}

void TuneProcess() { absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore); }

}  // namespace gdn
