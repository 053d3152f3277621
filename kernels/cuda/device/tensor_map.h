// Tensors in global memory as the copy engine knows them, to bring tiles of them into panels
// (CopyPanel in ptx.cuh, panel.cuh).
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace gdn::cuda {

using TensorMap = CUtensorMap;

// Of `rows` rows of `columns` elements of 16 bits, `stride` elements apart: 64 rows of 64 columns
// at a time. What lies beyond the last row or column comes as zeros.
cudaError_t MapPanels(const void* data, int64_t columns, int64_t rows, int64_t stride,
                      TensorMap* map);

}  // namespace gdn::cuda
