// The table of one instruction set. Compiled several times, each with its own flags and with
// GDN_CPU_ISA naming the result.
#include "kernels/cpu/kernels.h"

#include "kernels/cpu/isa/chunk.h"
#include "kernels/cpu/isa/pointwise.h"
#include "kernels/cpu/isa/product.h"
#include "kernels/cpu/isa/recurrent.h"

#define GDN_STRING_OF(x) #x
#define GDN_STRING(x) GDN_STRING_OF(x)

namespace gdn::cpu::GDN_CPU_ISA {

extern const Kernels kKernels;
const Kernels kKernels = {
    .name = GDN_STRING(GDN_CPU_ISA),
    .panel = kPanel,
    .to_float = ToFloat,
    .from_float = FromFloat,
    .all_finite = AllFinite,
    .pack_rows = PackRows,
    .pack_columns = PackColumns,
    .product = Product,
    .conv = Conv,
    .l2norm = L2Norm,
    .rmsnorm_gated = RmsNormGated,
    .recurrent = Recurrent,
    .chunked = Chunked,
    .chunk_prepare = ChunkPrepare,
    .chunk_kkt = ChunkKkt,
    .chunk_solve = ChunkSolve,
    .chunk_w_u = ChunkWU,
    .chunk_v_new = ChunkVNew,
    .chunk_o = ChunkO,
    .chunk_state = ChunkState,
};

}  // namespace gdn::cpu::GDN_CPU_ISA
