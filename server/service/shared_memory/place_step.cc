#include "server/service/shared_memory/place_step.h"

#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/layout.h"

namespace gdn {
namespace {

// Below it a copy by the host is sooner done than one of the device's own is begun.
constexpr uint64_t kLeastForDevice = 64 << 10;

struct Range {
  uint64_t offset = 0;
  uint64_t size = 0;
};

Fault CheckWithin(const char* what, Range range, uint64_t present) {
  if (range.size == 0 || (range.offset <= present && range.size <= present - range.offset)) {
    return {};
  }
  const bool overflows = range.offset > std::numeric_limits<uint64_t>::max() - range.size;
  const uint64_t end = overflows ? std::numeric_limits<uint64_t>::max() : range.offset + range.size;
  Fault fault =
      FaultOf(v1::ERROR_REASON_INPUT_SIZE_MISMATCH,
              absl::StrCat("The ", what, " of ", range.size, " bytes at ", range.offset,
                           " leaves its region, of which there are ", present, " bytes."));
  fault.metadata = {{"expected_bytes", absl::StrCat(end)}, {"actual_bytes", absl::StrCat(present)}};
  return fault;
}

// Both lie within the region.
bool Overlap(Range a, Range b) {
  return a.size > 0 && b.size > 0 && a.offset < b.offset + b.size && b.offset < a.offset + a.size;
}

bool LeftToDevice(const Region& region, uint64_t size) {
  return region.device() != nullptr && (region.host() == nullptr || size >= kLeastForDevice);
}

void PlaceInput(const std::shared_ptr<Region>& region, Range range, Step* step) {
  step->request.input.clear();
  if (range.size == 0) return;
  if (LeftToDevice(*region, range.size)) {
    const auto* at = reinterpret_cast<const char*>(region->device()->address() + range.offset);
    step->request.input = {{at, range.size}};
    step->request.direct_input = true;
    step->message = region;
    return;
  }
  std::shared_ptr<char[]> copy(new char[range.size]);
  std::memcpy(copy.get(), region->host() + range.offset, range.size);
  step->request.input = {{copy.get(), range.size}};
  step->message = std::move(copy);
}

void PlaceOutput(const std::shared_ptr<Region>& region, Range range, Step* step) {
  step->allocate = [region, range](size_t bytes) {
    OutputBuffer buffer;
    buffer.owner = region;
    buffer.size = bytes;
    buffer.shared = true;
    if (region->host() != nullptr) buffer.data = region->host() + range.offset;
    if (LeftToDevice(*region, bytes)) {
      buffer.direct = true;
      buffer.device = region->device();
      buffer.device_offset = range.offset;
    }
    return buffer;
  };
}

}  // namespace

Fault PlaceStep(const Regions& regions, const StepLimits& limits, Step* step) {
  const StepRequest& request = step->request;
  const SharedPlace& place = *request.shared_memory;
  const std::shared_ptr<Region> region = regions.Find(place.region);
  if (region == nullptr) {
    return FaultOf(v1::ERROR_REASON_REGION_NOT_FOUND, "No region of this name is registered.");
  }
  const auto layout = static_cast<InputLayout>(request.input_layout);
  const uint64_t tokens = request.total_tokens();
  Range input = {place.input_offset, tokens * InputRowBytes(limits.geometry, layout, limits.io)};
  Range output = {place.output_offset, tokens * OutputRowBytes(limits.geometry, layout, limits.io)};
  if (request.synthetic_seed != 0) input.size = 0;
  if (request.discard_output) output.size = 0;

  const uint64_t present = region->present();
  Fault fault = CheckWithin("input", input, present);
  if (fault.ok()) fault = CheckWithin("output", output, present);
  if (!fault.ok()) return fault;
  if (Overlap(input, output) && input.offset != output.offset) {
    return FaultOf(v1::ERROR_REASON_MALFORMED_BATCH,
                   "Input and output overlap and do not begin at the same byte.");
  }
  PlaceInput(region, input, step);
  if (output.size > 0) PlaceOutput(region, output, step);
  // It may have been truncated while it was read.
  return CheckWithin("input", input, region->present());
}

}  // namespace gdn
