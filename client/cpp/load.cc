#include "client/cpp/load.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace gdn::client {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// `elements` times 0.5.
std::string Halves(v1::DataType type, size_t elements) {
  const std::string half = type == v1::DATA_TYPE_FP32   ? std::string("\0\0\0\x3f", 4)
                           : type == v1::DATA_TYPE_BF16 ? std::string("\0\x3f", 2)
                                                        : std::string("\0\x38", 2);
  std::string bytes;
  bytes.reserve(elements * half.size());
  for (size_t i = 0; i < elements; ++i) bytes += half;
  return bytes;
}

class Caller {
 public:
  Caller(const v1::GetServerInfoResponse& info, const LoadOptions& options,
         std::unique_ptr<Client> client, int index)
      : prefill_(options.prefill), client_(std::move(client)) {
    const auto tokens = static_cast<uint32_t>(options.tokens);
    request_.set_layer(info.layers(0));
    v1::Batch* batch = request_.mutable_batch();
    batch->set_data_type(info.data_type());
    batch->set_create(true);
    batch->set_release_after(prefill_);
    const std::string id = "gdn-ctl-" + std::to_string(getpid()) + "-" + std::to_string(index);
    for (int row = 0; row < options.rows; ++row) {
      batch->add_request_ids(id + "-" + std::to_string(row));
      batch->add_token_counts(tokens);
    }
    ids_ = batch->request_ids();
    const size_t rows = static_cast<size_t>(options.rows);
    input_ = grpc::Slice(Halves(info.data_type(), rows * tokens * info.geometry().hidden_size()));
  }

  // The first decode begins its sequences by id; the others go by slot and epoch.
  Error Call() {
    v1::Batch* batch = request_.mutable_batch();
    batch->set_step_id(++step_id_);
    const std::string request = request_.SerializeAsString();
    StepAnswer answer;
    Error error = prefill_ ? client_->PrefillSerialized(request, input_, &answer)
                           : client_->DecodeSerialized(request, input_, &answer);
    if (!error.ok() || prefill_ || !batch->create()) return error;
    batch->set_create(false);
    batch->clear_request_ids();
    *batch->mutable_slots() = answer.header.slots();
    *batch->mutable_epochs() = answer.header.epochs();
    return error;
  }

  void Release() {
    v1::ReleaseSequencesRequest request;
    *request.mutable_request_ids() = ids_;
    client_->Release(request);
  }

 private:
  bool prefill_;
  std::unique_ptr<Client> client_;
  v1::DecodeRequest request_;  // PrefillRequest has the same fields
  google::protobuf::RepeatedPtrField<std::string> ids_;
  grpc::Slice input_;
  uint64_t step_id_ = 0;
};

class Load {
 public:
  Load(const LoadOptions& options, const Progress& progress)
      : seconds_(options.seconds), progress_(progress) {}

  LoadResult Run(std::vector<Caller>* callers) {
    std::vector<std::thread> threads;
    running_ = callers->size();
    for (Caller& caller : *callers) threads.emplace_back([this, &caller] { CallOver(&caller); });
    Watch();
    for (std::thread& thread : threads) thread.join();
    std::sort(result_.latencies.begin(), result_.latencies.end());
    return std::move(result_);
  }

 private:
  void CallOver(Caller* caller) {
    std::vector<double> latencies;
    Error error;
    while (error.ok() && SecondsSince(begin_) < seconds_) {
      const Clock::time_point call = Clock::now();
      error = caller->Call();
      if (!error.ok()) break;
      latencies.push_back(SecondsSince(call));
      ++calls_;
    }
    caller->Release();
    const std::lock_guard lock(mutex_);
    result_.latencies.insert(result_.latencies.end(), latencies.begin(), latencies.end());
    if (!error.ok() && result_.errors++ == 0) result_.first_error = error;
    result_.seconds = std::max(result_.seconds, SecondsSince(begin_));
    --running_;
    ended_.notify_one();
  }

  void Watch() {
    constexpr auto kOften = std::chrono::milliseconds(100);
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, kOften, [this] { return running_ == 0; })) {
      progress_(std::min(1.0, SecondsSince(begin_) / seconds_), calls_);
    }
    progress_(1, calls_);
  }

  const double seconds_;
  const Progress& progress_;
  const Clock::time_point begin_ = Clock::now();
  std::atomic<uint64_t> calls_ = 0;
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t running_ = 0;
  LoadResult result_;
};

}  // namespace

double LoadResult::Percentile(double percent) const {
  if (latencies.empty()) return 0;
  const double rank = percent / 100 * static_cast<double>(latencies.size() - 1);
  return latencies[static_cast<size_t>(std::lround(rank))];
}

LoadResult RunLoad(const v1::GetServerInfoResponse& info, const LoadOptions& options,
                   const MakeClient& make_client, const Progress& progress) {
  std::vector<Caller> callers;
  callers.reserve(static_cast<size_t>(options.callers));
  for (int i = 0; i < options.callers; ++i) callers.emplace_back(info, options, make_client(), i);
  return Load(options, progress).Run(&callers);
}

}  // namespace gdn::client
