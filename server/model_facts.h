// From configuration and checkpoint to the numbers that everything else is built with.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/checkpoint/weights.h"
#include "server/config.h"
#include "server/service/hosted.h"

namespace gdn {

// Sizes and types of the backend. INVALID_ARGUMENT names the flag that does not fit the model.
absl::StatusOr<BackendShape> ShapeOf(const config::ServerConfig& config, const ModelInfo& model);

// Bytes of the largest message that the limits allow.
int64_t MaxMessageBytes(const config::ServerConfig& config, const BackendShape& shape);

// Everything a request is held against, but for the engine.
Hosted FactsOf(const config::ServerConfig& config, const ModelInfo& model,
               const BackendShape& shape, const std::string& instance_id);

EngineOptions EngineOptionsOf(const config::ServerConfig& config, const ModelInfo& model,
                              const BackendShape& shape, uint32_t default_prefill_chunk,
                              uint64_t first_epoch);

}  // namespace gdn
