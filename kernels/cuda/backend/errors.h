// The first error of a sequence of CUDA calls, and which of them it was.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gdn::cuda {

class Errors {
 public:
  // Takes the outcome of `what`. Calls that follow a failed one may still be made: they fail too,
  // or do nothing that counts.
  void Add(const char* what, cudaError_t error) {
    if (error == cudaSuccess || !status_.ok()) return;
    status_ = absl::InternalError(absl::StrCat("cuda: ", what, ": ", cudaGetErrorName(error), ": ",
                                               cudaGetErrorString(error)));
  }

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

}  // namespace gdn::cuda
