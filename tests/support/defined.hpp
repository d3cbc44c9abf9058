// Attention by its definition, with its weights, for tests of what is built on weights.
#pragma once

#include <functional>
#include <heed/ref/attention.hpp>

#include "tensor.hpp"

namespace test {

struct defined {
    tensor<double> o, p;  // (B, H, N, E), (B, H, N, M)

    defined(const tensor<double>& q, const tensor<double>& k, const tensor<double>& v,
            const ref::options<double>& with = {})
        : o({q.shape()[0], q.shape()[1], q.shape()[2], v.shape()[3]}),
          p({q.shape()[0], q.shape()[1], q.shape()[2], k.shape()[2]}) {
        ref::record<double> to;
        to.probability = p.v();
        ref::attention(q.v(), k.v(), v.v(), o.v(), with, to);
    }
};

inline ref::options<double> seeing(std::function<bool(index_t i, index_t j)> visible) {
    ref::options<double> with;
    with.visible = [visible](index_t, index_t, index_t, index_t i, index_t j) { return visible(i, j); };
    return with;
}
inline ref::options<double> causally() {
    return seeing([](index_t i, index_t j) { return j <= i; });
}

/// The tokens named of a tensor, (B, H, n, D).
template <class T>
tensor<T> rows_at(const tensor<T>& from, const std::vector<index_t>& tokens) {
    const auto [B, H, N, D] = from.shape();
    tensor<T> out({B, H, static_cast<index_t>(tokens.size()), D});
    out.each([&](index_t b, index_t h, index_t n, index_t d) {
        out(b, h, n, d) = from(b, h, tokens[static_cast<std::size_t>(n)], d);
    });
    return out;
}

/// Largest difference of two tensors of one shape.
template <class T>
double distance(const tensor<T>& a, const tensor<T>& b) {
    double worst = a.shape() == b.shape() ? 0 : std::numeric_limits<double>::infinity();
    if (a.shape() == b.shape())
        a.each([&](index_t x, index_t h, index_t n, index_t d) {
            const double gap = std::abs(static_cast<double>(a(x, h, n, d)) - static_cast<double>(b(x, h, n, d)));
            if (!(gap <= worst)) worst = gap;
        });
    return worst;
}

}  // namespace test
