// gdn.v1.SequenceService: Get, List, Release and Renew; the others are UNIMPLEMENTED.
#pragma once

#include "gdn/v1/sequence_service.grpc.pb.h"
#include "server/service/hosted.h"

namespace gdn {

using RawSequenceService = v1::SequenceService::WithRawCallbackMethod_GetSequence<
    v1::SequenceService::WithRawCallbackMethod_ListSequences<
        v1::SequenceService::WithRawCallbackMethod_ReleaseSequences<
            v1::SequenceService::WithRawCallbackMethod_RenewSequences<
                v1::SequenceService::WithRawCallbackMethod_ForkSequences<
                    v1::SequenceService::WithRawCallbackMethod_CheckpointSequence<
                        v1::SequenceService::WithRawCallbackMethod_RestoreSequence<
                            v1::SequenceService::WithRawCallbackMethod_ExportSequence<
                                v1::SequenceService::WithRawCallbackMethod_ImportSequence<
                                    v1::SequenceService::Service>>>>>>>>>;

class SequenceService final : public RawSequenceService {
 public:
  explicit SequenceService(const Readiness& readiness) : readiness_(readiness) {}

  grpc::ServerUnaryReactor* GetSequence(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListSequences(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ReleaseSequences(grpc::CallbackServerContext* context,
                                             const grpc::ByteBuffer* request,
                                             grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RenewSequences(grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) override;

 private:
  const Readiness& readiness_;
};

}  // namespace gdn
