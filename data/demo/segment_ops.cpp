// SPDX-License-Identifier: Apache-2.0
#include "data/demo/segment_ops.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>

namespace raingauge::demo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Segment {
  int64_t row, start, length;
  at::Tensor of(const at::Tensor& tokens) const { return tokens.narrow(1, start, length); }
  at::Tensor of_rows(const at::Tensor& rows) const { return rows.narrow(1, row, 1); }
};

std::array<Segment, 2> segments_of(const at::Tensor& value, int64_t split) {
  return {Segment{0, 0, split}, Segment{1, split, value.size(1) - split}};
}

struct SegmentAddcmul : torch::autograd::Function<SegmentAddcmul> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& base,
                            const at::Tensor& value, const at::Tensor& scale, int64_t split) {
    const bool base_has_rows = base.size(1) != value.size(1);
    context->save_for_backward({value, scale});
    context->saved_data["split"] = split;
    context->saved_data["base_has_rows"] = base_has_rows;
    at::Tensor result = at::empty_like(value, at::MemoryFormat::Contiguous);
    for (const Segment& s : segments_of(value, split)) {
      at::Tensor part = s.of(result);
      at::addcmul_out(part, base_has_rows ? s.of_rows(base) : s.of(base), s.of(value),
                      s.of_rows(scale));
    }
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &value = saved[0], &scale = saved[1], &gradient = gradients[0];
    const auto parts = segments_of(value, context->saved_data["split"].toInt());
    const bool base_has_rows = context->saved_data["base_has_rows"].toBool();
    at::Tensor to_value = at::empty_like(value, at::MemoryFormat::Contiguous);
    at::Tensor to_scale = at::empty_like(scale, at::MemoryFormat::Contiguous);
    at::Tensor to_base = base_has_rows ? at::empty_like(to_scale) : gradient;
    const at::Tensor product = gradient * value;
    for (const Segment& s : parts) {
      at::Tensor value_part = s.of(to_value), scale_part = s.of_rows(to_scale);
      at::mul_out(value_part, s.of(gradient), s.of_rows(scale));
      at::sum_out(scale_part, s.of(product), 1, /*keepdim=*/true);
      if (!base_has_rows) continue;
      at::Tensor base_part = s.of_rows(to_base);
      at::sum_out(base_part, s.of(gradient), 1, /*keepdim=*/true);
    }
    return {to_base, to_value, to_scale, at::Tensor()};
  }
};

}  // namespace

at::Tensor segment_addcmul(const at::Tensor& base, const at::Tensor& value, const at::Tensor& scale,
                           int64_t split) {
  return SegmentAddcmul::apply(base, value, scale, split);
}

}  // namespace raingauge::demo
