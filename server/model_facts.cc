#include "server/model_facts.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "google/protobuf/duration.pb.h"
#include "kernels/layout.h"
#include "kernels/validate.h"

namespace gdn {
namespace {

DType ParseDType(const std::string& name, DType automatic) {
  if (name == "fp32") return DType::kFp32;
  if (name == "bf16") return DType::kBf16;
  if (name == "fp16") return DType::kFp16;
  return automatic;
}

v1::DataType ToProto(DType type) {
  switch (type) {
    case DType::kFp32:
      return v1::DATA_TYPE_FP32;
    case DType::kBf16:
      return v1::DATA_TYPE_BF16;
    case DType::kFp16:
      return v1::DATA_TYPE_FP16;
  }
  return v1::DATA_TYPE_UNSPECIFIED;
}

void ToProto(absl::Duration duration, google::protobuf::Duration* proto) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  proto->set_seconds(seconds);
  proto->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(seconds))));
}

v1::Geometry ToProto(const Geometry& g) {
  v1::Geometry proto;
  proto.set_hidden_size(static_cast<uint32_t>(g.hidden_size));
  proto.set_key_heads(static_cast<uint32_t>(g.key_heads));
  proto.set_value_heads(static_cast<uint32_t>(g.value_heads));
  proto.set_key_dim(static_cast<uint32_t>(g.key_dim));
  proto.set_value_dim(static_cast<uint32_t>(g.value_dim));
  proto.set_conv_width(static_cast<uint32_t>(g.conv_width));
  return proto;
}

v1::GetServerInfoResponse InfoOf(const config::ServerConfig& config, const ModelInfo& model,
                                 const BackendShape& shape, const std::string& instance_id) {
  v1::GetServerInfoResponse info;
  info.set_version(GDN_VERSION);
  info.set_instance_id(instance_id);
  info.set_model_fingerprint(model.fingerprint);
  *info.mutable_geometry() = ToProto(shape.geometry);
  for (const int layer : model.layers) info.add_layers(static_cast<uint32_t>(layer));
  info.set_data_type(ToProto(shape.io));
  info.set_ssm_data_type(ToProto(shape.state));
  if (shape.projections) info.add_input_layouts(v1::INPUT_LAYOUT_HIDDEN);
  info.add_input_layouts(v1::INPUT_LAYOUT_QKV_B_A);
  info.add_input_layouts(v1::INPUT_LAYOUT_QKV_Z_B_A);
  info.add_input_layouts(v1::INPUT_LAYOUT_QKV_BETA_G);
  info.add_input_layouts(v1::INPUT_LAYOUT_QKV_Z_BETA_G);
  info.set_max_rows(static_cast<uint32_t>(shape.max_rows));
  info.set_max_tokens(static_cast<uint32_t>(shape.max_tokens));
  info.set_max_decode_tokens(static_cast<uint32_t>(shape.max_decode_tokens));
  info.set_max_message_bytes(static_cast<uint64_t>(MaxMessageBytes(config, shape)));
  info.set_slots(static_cast<uint32_t>(shape.slots));
  ToProto(DurationOf(config.step_ttl()), info.mutable_step_ttl());
  ToProto(DurationOf(config.max_ttl()), info.mutable_max_ttl());
  return info;
}

}  // namespace

absl::StatusOr<BackendShape> ShapeOf(const config::ServerConfig& config, const ModelInfo& model) {
  BackendShape shape;
  shape.geometry = model.geometry;
  shape.io = ParseDType(config.dtype(), model.dtype);
  shape.state = ParseDType(config.state_dtype(), DType::kFp32);
  shape.projections = model.projections;
  shape.layers = static_cast<int>(model.layers.size());
  shape.slots = config.slots();
  shape.max_rows = config.max_rows();
  shape.max_tokens = config.max_tokens();
  shape.max_decode_tokens = config.max_decode_tokens();
  if (const absl::Status status = Validate(shape); !status.ok()) return status;
  return shape;
}

int64_t MaxMessageBytes(const config::ServerConfig& config, const BackendShape& shape) {
  if (config.max_message_bytes() > 0) return config.max_message_bytes();
  constexpr int64_t kHeaderRoom = 1 << 20;
  size_t row = 0;
  for (const InputLayout layout :
       {InputLayout::kHidden, InputLayout::kQkvZBA, InputLayout::kQkvZBetaG}) {
    if (layout == InputLayout::kHidden && !shape.projections) continue;
    row = std::max(row, InputRowBytes(shape.geometry, layout, shape.io));
  }
  return std::min<int64_t>(static_cast<int64_t>(row) * shape.max_tokens + kHeaderRoom,
                           std::numeric_limits<int>::max());
}

Hosted FactsOf(const config::ServerConfig& config, const ModelInfo& model,
               const BackendShape& shape, const std::string& instance_id) {
  Hosted hosted;
  hosted.info = InfoOf(config, model, shape, instance_id);
  StepLimits& limits = hosted.limits;
  limits.geometry = shape.geometry;
  limits.io = shape.io;
  limits.layers.assign(model.layers.begin(), model.layers.end());
  limits.projections = shape.projections;
  limits.slots = static_cast<uint32_t>(shape.slots);
  limits.max_rows = static_cast<uint32_t>(shape.max_rows);
  limits.max_tokens = static_cast<uint64_t>(shape.max_tokens);
  limits.max_decode_tokens = static_cast<uint32_t>(shape.max_decode_tokens);
  limits.allow_synthetic_input = config.allow_synthetic_input();
  limits.allow_shared_memory = config.allow_shared_memory();
  hosted.rules = {instance_id, DurationOf(config.step_ttl()), DurationOf(config.max_ttl())};
  return hosted;
}

EngineOptions EngineOptionsOf(const config::ServerConfig& config, const ModelInfo& model,
                              const BackendShape& shape, uint32_t default_prefill_chunk,
                              uint64_t first_epoch) {
  EngineOptions options;
  options.layers = model.layers;
  options.shape = shape;
  options.max_queue_steps = static_cast<size_t>(config.max_queue_steps());
  options.max_queue_rows = static_cast<size_t>(config.max_queue_rows());
  options.max_queue_bytes = static_cast<size_t>(config.max_queue_bytes());
  options.replay_bytes = static_cast<size_t>(config.replay_bytes());
  options.step_ttl = DurationOf(config.step_ttl());
  options.prefill_max_wait = DurationOf(config.prefill_max_wait());
  options.prefill_chunk = config.prefill_chunk() < 0
                              ? default_prefill_chunk
                              : static_cast<uint32_t>(config.prefill_chunk());
  options.first_epoch = first_epoch;
  return options;
}

}  // namespace gdn
