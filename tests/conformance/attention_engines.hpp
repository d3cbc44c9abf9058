// A call, run by the kernels with heed's policies, or by the definition with plain functions.
#pragma once

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

template <class T>
void run_heed(const call<T>& c) {
    run_reference(c);
}

}  // namespace conformance
