// A call, run by the kernels with heed's policies, or by the definition with plain functions.
#pragma once

#include <heed/heed.hpp>
#include <heed/ref/attention.hpp>

#include "attention_call.hpp"

namespace conformance {

template <class T>
void run_reference(const call<T>& c) {
    ref::options<double> with;
    with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
        if (c.causal && j > i) return false;
        if (c.left >= 0 && j < i - c.left) return false;
        if (c.right >= 0 && j > i + c.right) return false;
        if (c.visible.data && !c.visible(b, h, row, j)) return false;
        return j < c.keys[static_cast<std::size_t>(b)];
    };
    if (c.bias.data)
        with.bias = [&](index_t b, index_t h, index_t row, index_t, index_t j) {
            return static_cast<double>(c.bias(b, h, row, j));
        };
    if (c.softcap > 0)
        with.score = [&](double x, index_t, index_t, index_t, index_t, index_t) {
            return c.softcap * std::tanh(x / c.softcap);
        };
    with.scale = c.scale;
    with.offset = c.offset;
    std::vector<double> logits(static_cast<std::size_t>(c.logits.data ? c.logits.size() : 0));
    ref::record<double> record;
    view<double, 4>* const stages[] = {&record.raw, &record.scored, &record.masked, &record.probability};
    if (c.logits.data) *stages[c.mode] = {logits.data(), c.logits.shape, dense_strides(c.logits.shape)};
    ref::attention(c.q, c.k, c.v, c.o, with, record);
    std::size_t at = 0;
    if (c.logits.data)
        for (index_t b = 0; b < c.logits.shape[0]; ++b)
            for (index_t h = 0; h < c.logits.shape[1]; ++h)
                for (index_t n = 0; n < c.logits.shape[2]; ++n)
                    for (index_t m = 0; m < c.logits.shape[3]; ++m) c.logits(b, h, n, m) = static_cast<T>(logits[at++]);
}

/// Calls f with the mask of the call, composed of heed's own: what does not hold is left open, so that few compositions
/// (and short compile times) cover every case.
template <class T, class F>
void with_mask(const call<T>& c, F&& f) {
    const std::vector<index_t> when_not_causal(c.keys.size(), c.causal ? 0 : c.k.shape[2]);
    const auto mask = (causal{} | lengths{when_not_causal}) & window{c.left, c.right} & lengths{c.keys};
    if (c.visible.data)
        f(mask & boolean{c.visible});
    else if (c.bias.data)
        f(mask & additive{c.bias});
    else
        f(mask);
}

template <class T>
void run_heed(const call<T>& c) {
    const auto attend = [&](const auto&... policies) { attention(c.q, c.k, c.v, c.o, offset{c.offset}, policies...); };
    with_mask(c, [&](const auto& mask) {
        const auto with_probe = [&](const auto& score) {
            if (c.logits.data)
                attend(mask, score, logits{c.logits, static_cast<stage>(c.mode)});
            else
                attend(mask, score);
        };
        if (c.softcap > 0)
            with_probe(scale{c.scale} >> softcap{c.softcap});
        else
            with_probe(scale{c.scale});
    });
}

}  // namespace conformance
