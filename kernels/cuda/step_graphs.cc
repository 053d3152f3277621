#include "kernels/cuda/step_graphs.h"

namespace gdn::cuda {

StepGraphs::~StepGraphs() {
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
}

void StepGraphs::Launch(const Key& key, const std::function<void(cudaStream_t)>& enqueue,
                        cudaStream_t stream, Errors& errors) {
  Prepare(key, enqueue, stream, errors);
  if (!errors.ok()) return;
  errors.Add("decode graph", cudaGraphLaunch(graphs_.at(key), stream));
}

void StepGraphs::Prepare(const Key& key, const std::function<void(cudaStream_t)>& enqueue,
                         cudaStream_t stream, Errors& errors) {
  if (graphs_.count(key) > 0) return;
  errors.Add("graph capture", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  enqueue(stream);
  cudaGraph_t graph = nullptr;
  errors.Add("graph capture", cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t ready = nullptr;
  if (graph != nullptr) errors.Add("graph", cudaGraphInstantiate(&ready, graph, 0));
  if (ready != nullptr) errors.Add("graph upload", cudaGraphUpload(ready, stream));
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (ready != nullptr) graphs_.emplace(key, ready);
}

// Powers of two, and the middle between two of them.
int64_t GraphRows(int64_t rows) {
  int64_t power = 1;
  while (power < rows) power *= 2;
  return power >= 4 && power / 4 * 3 >= rows ? power / 4 * 3 : power;
}

}  // namespace gdn::cuda
