// Eigen matrices, maps and blocks as operands: an N x D matrix is one batch, one head, (1, 1, N, D), in either order.
#pragma once

#include <Eigen/Core>

#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// Dense Eigen objects with storage of their own (not lazy expressions).
template <class M>
    requires std::is_base_of_v<Eigen::DenseBase<M>, M> && requires(M& m) {
        m.data();
        m.innerStride();
        m.outerStride();
    }
struct viewable<M> {
    template <class Object>
    static auto view_of(Object& m) {
        const index_t inner = m.innerStride(), outer = m.outerStride();
        const index_t row = M::IsRowMajor ? outer : inner, column = M::IsRowMajor ? inner : outer;
        using T = std::remove_pointer_t<decltype(m.data())>;
        return view<T>{m.data(), {1, 1, m.rows(), m.cols()}, {m.size(), m.size(), row, column}};
    }
};

}  // namespace heed::inline HEED_ABI
