// An ONNX Attention call, read from its case: operands as views, rules resolved, types still open.
//
//   offset   past length if there is a past, nonpad_kv_seqlen - N per batch if that is given, else 0 (top-left)
//   logits   scale q.k -> softcap -> + mask -> causal, window, nonpad: hidden
#pragma once

#include <heed/core/view.hpp>
#include <limits>
#include <memory>

#include "operand.hpp"

namespace conformance {

/// A mask input, padded to M keys and broadcast to (B, H, N, M) by strides of 0. A boolean one holds 0 and -inf.
template <class Real>
struct mask_input {
    bool boolean = false;
    std::vector<Real> bias;
    std::unique_ptr<bool[]> visible;
    extents<4> shape{}, strides{};

    view<const Real> as_bias() const { return {bias.data(), shape, strides}; }
    view<const bool> as_boolean() const { return {visible.get(), shape, strides}; }
};

/// One call of attention: the whole batch, or one sequence of it where the offset varies.
template <class T>
struct call {
    using real = accumulator<T>;

    view<T> q, k, v, o;
    double scale = 1;
    double softcap = 0;  // 0: none
    bool causal = false;
    index_t left = -1, right = -1;  // -1: open
    index_t offset = 0;
    view<const real> bias;      // of the mask, if additive
    view<const bool> visible;   // of the mask, if boolean
    std::vector<index_t> keys;  // per sequence: keys before the padding
    view<T> logits;             // qk_matmul_output, if wanted
    int mode = 0;
};

/// past, then now, along the sequence.
template <class T>
operand<T> joined(const operand<T>& past, const operand<T>& now, const std::string& name) {
    const auto [B, G, P, D] = past.at.shape;
    const index_t S = now.at.shape[2];
    require(now.at.shape == extents<4>{B, G, S, D}, "past_" + name + " does not fit " + name);
    operand<T> x{std::vector<T>(static_cast<std::size_t>(B * G * (P + S) * D)), {}};
    x.at = heed::heads(x.data.data(), {B, G, P + S, D});
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j = 0; j < P + S; ++j)
                for (index_t d = 0; d < D; ++d) x.at(b, g, j, d) = j < P ? past.at(b, g, j, d) : now.at(b, g, j - P, d);
    return x;
}

/// Right-aligned broadcasting; what is not boolean is added, integers too; a last axis shorter than M is padded with
/// "hidden" (also where it is 1).
template <class Real>
mask_input<Real> mask_of(const array& a, const extents<4>& logits) {
    const index_t M = logits[3], rank = a.rank();
    require(rank >= 1 && rank <= 4, "attn_mask has rank " + std::to_string(rank));
    const index_t had = a.shape.back(), rows = had > 0 ? a.size() / had : 0;
    require(had <= M, "attn_mask is longer than the keys");
    mask_input<Real> m;
    m.boolean = a.type == "bool";
    m.shape = logits;
    index_t step = M, extent = 1;
    m.strides[3] = 1;
    for (index_t back = 1; back < rank; ++back) {
        const auto axis = static_cast<std::size_t>(3 - back);
        extent = a.shape[static_cast<std::size_t>(rank - 1 - back)];
        require(extent == 1 || extent == logits[axis], "attn_mask does not broadcast to the logits");
        m.strides[axis] = extent == 1 ? 0 : step;
        step *= extent;
    }
    const auto given = a.as<Real>();
    const auto at = [&](index_t r, index_t j) { return given[static_cast<std::size_t>(r * had + j)]; };
    m.bias.assign(static_cast<std::size_t>(step), -std::numeric_limits<Real>::infinity());
    m.visible = std::make_unique<bool[]>(static_cast<std::size_t>(step));
    for (index_t r = 0; r < rows; ++r)
        for (index_t j = 0; j < had; ++j) {
            const auto to = static_cast<std::size_t>(r * M + j);
            m.visible[to] = at(r, j) != 0;
            if (!m.boolean || m.visible[to]) m.bias[to] = m.boolean ? Real(0) : at(r, j);
        }
    return m;
}

}  // namespace conformance
