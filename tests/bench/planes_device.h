// What planes_bench measures of the CUDA backend by itself.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/backend.h"
#include "tests/bench/planes_board.h"
#include "tests/bench/planes_server.h"

namespace gdn {

// Whether this build and this machine have the CUDA backend.
bool HaveDevice();

// One layer. REQUIRES HaveDevice().
class PlanesDevice {
 public:
  explicit PlanesDevice(const BackendShape& shape);
  ~PlanesDevice();

  // The backend with the layer loaded, and what a server takes of its device.
  PlanesBackend MakeBackend() const;
  StepTimes TimeStep(int64_t rows, int64_t tokens) const;

 private:
  struct Layer;

  const BackendShape shape_;
  const std::unique_ptr<Layer> layer_;
};

}  // namespace gdn
