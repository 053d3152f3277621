#include "kernels/cuda/backend/step_graphs.h"

namespace gdn::cuda {
namespace {

// Null where that fails; nothing then remains of the attempt.
cudaGraphExec_t Capture(const StepGraphs::Enqueue& enqueue, cudaStream_t stream) {
  Errors errors;
  errors.Add("begin", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  if (errors.ok()) enqueue(stream, errors);
  cudaGraph_t graph = nullptr;
  errors.Add("end", cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t ready = nullptr;
  if (errors.ok()) errors.Add("graph", cudaGraphInstantiate(&ready, graph, 0));
  if (errors.ok()) errors.Add("upload", cudaGraphUpload(ready, stream));
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (errors.ok()) return ready;
  if (ready != nullptr) cudaGraphExecDestroy(ready);
  cudaGetLastError();  // not to be taken for that of a launch
  return nullptr;
}

}  // namespace

StepGraphs::~StepGraphs() {
  for (const auto& [key, graph] : graphs_) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
}

void StepGraphs::Launch(const Key& key, const Enqueue& enqueue, cudaStream_t stream,
                        Errors& errors) {
  const cudaGraphExec_t graph = Prepare(key, enqueue, stream);
  if (graph == nullptr) return enqueue(stream, errors);
  errors.Add("decode graph", cudaGraphLaunch(graph, stream));
}

cudaGraphExec_t StepGraphs::Prepare(const Key& key, const Enqueue& enqueue, cudaStream_t stream) {
  const auto known = graphs_.find(key);
  if (known != graphs_.end()) return known->second;
  return graphs_[key] = Capture(enqueue, stream);
}

// Powers of two, and the middle between two of them.
int64_t GraphRows(int64_t rows) {
  int64_t power = 1;
  while (power < rows) power *= 2;
  return power >= 4 && power / 4 * 3 >= rows ? power / 4 * 3 : power;
}

}  // namespace gdn::cuda
