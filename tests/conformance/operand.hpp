// Inputs of a case as operands: elements and a (b, h, n, d) view of them.
#pragma once

#include <heed/core/view.hpp>

#include "replay.hpp"

namespace conformance {

inline void require(bool ok, const std::string& what) {
    if (!ok) throw std::runtime_error(what);
}

/// Elements and the (b, h, n, d) view of them.
template <class T>
struct operand {
    std::vector<T> data;
    view<T> at;
};

/// Zeros of shape (b, h, n, d), in this order or with tokens before heads.
template <class T>
operand<T> made(const extents<4>& shape, bool tokens_first = false) {
    const auto [B, H, N, D] = shape;
    operand<T> x{std::vector<T>(static_cast<std::size_t>(B * H * N * D), T(0)), {}};
    x.at = tokens_first ? tokens(x.data.data(), {B, N, H, D}) : heads(x.data.data(), shape);
    return x;
}

/// Element (b, h, n, d) is f(b, h, n, d).
template <class T, class F>
operand<T> made_by(const extents<4>& shape, F&& f) {
    auto x = made<T>(shape);
    for (index_t b = 0; b < shape[0]; ++b)
        for (index_t h = 0; h < shape[1]; ++h)
            for (index_t n = 0; n < shape[2]; ++n)
                for (index_t d = 0; d < shape[3]; ++d) x.at(b, h, n, d) = static_cast<T>(f(b, h, n, d));
    return x;
}

/// (B, H, S, d) as it is, (B, S, H d) by its number of heads.
template <class T>
operand<T> operand_of(const array& a, index_t heads, const std::string& name) {
    require(a.rank() == 3 || a.rank() == 4, name + " has rank " + std::to_string(a.rank()));
    operand<T> x{a.as<T>(), {}};
    if (a.rank() == 4) {
        require(heads == 0 || heads == a.shape[1], name + " has another number of heads than the attribute says");
        x.at = heed::heads(x.data.data(), {a.shape[0], a.shape[1], a.shape[2], a.shape[3]});
    } else {
        require(heads > 0, name + " has rank 3, and no attribute says how many heads");
        require(a.shape[2] % heads == 0, name + " does not divide into " + std::to_string(heads) + " heads");
        x.at = tokens(x.data.data(), {a.shape[0], a.shape[1], heads, a.shape[2] / heads});
    }
    return x;
}

/// The elements of a view in the order b h n d.
template <class T>
std::vector<T> in_order(const view<T>& x) {
    std::vector<T> out;
    for (index_t b = 0; b < x.shape[0]; ++b)
        for (index_t h = 0; h < x.shape[1]; ++h)
            for (index_t n = 0; n < x.shape[2]; ++n)
                for (index_t d = 0; d < x.shape[3]; ++d) out.push_back(x(b, h, n, d));
    return out;
}

}  // namespace conformance
