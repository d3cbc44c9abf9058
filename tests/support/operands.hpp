// q, k, v of a usual shape.
#pragma once

#include "random.hpp"

namespace test {

/// Two sequences, four query heads over two key heads, values of width 5.
template <class S>
struct operands {
    static constexpr index_t B = 2, H = 4, G = 2, E = 5;
    tensor<S> q, k, v;

    operands(index_t queries, index_t keys, index_t width = 6, const layout& l = {})
        : q(normal<S>({B, H, queries, width}, 1, 1.5, l)),
          k(normal<S>({B, G, keys, width}, 2, 1.5, l)),
          v(normal<S>({B, G, keys, E}, 3, 1, l)) {}
    index_t N() const { return q.shape()[2]; }
    index_t M() const { return k.shape()[2]; }
    extents<4> rows() const { return {B, H, N(), E}; }
};

}  // namespace test
