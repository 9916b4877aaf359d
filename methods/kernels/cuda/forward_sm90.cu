// SPDX-License-Identifier: Apache-2.0
// The instances of the Hopper forward kernel, each with the settings that measured fastest.
#include "methods/kernels/cuda/forward_sm90.cuh"

namespace raingauge::cuda_walk {
namespace {

template <Element kElement>
cudaError_t launch_dim(const SparseParams& params, const KeyTensor& k, const KeyTensor& v,
                       int head_dim, cudaStream_t stream) {
  if (params.every_box > 0) {
    if (head_dim != 64) return cudaErrorInvalidValue;
    return sm90::launch<sm90::Config<kElement, 64, false, 3>>(params, k, v, stream);
  }
  if (head_dim <= 64) {
    return sm90::launch<sm90::Config<kElement, 64, false>>(params, k, v, stream);
  }
  return sm90::launch<sm90::Config<kElement, 128, false>>(params, k, v, stream);
}

}  // namespace

int launch_sparse_sm90(const SparseParams& params, const KeyTensor& k, const KeyTensor& v,
                       Element element, int head_dim, void* stream) {
  if (head_dim < 8 || head_dim > 128 || head_dim % 8 != 0) return cudaErrorInvalidValue;
  SparseParams known = params;
  known.head_dim = head_dim;
  const auto on = static_cast<cudaStream_t>(stream);
  return element == Element::bf16 ? launch_dim<Element::bf16>(known, k, v, head_dim, on)
                                  : launch_dim<Element::f16>(known, k, v, head_dim, on);
}

}  // namespace raingauge::cuda_walk
