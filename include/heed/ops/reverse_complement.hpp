// Sequence models that treat both strands of DNA alike: Caduceus [53] (arXiv:2403.03234).
//
//   x (B, N, 2 D) = [x1, x2];  y1 = f(x1),  y2 = flip(f(flip(x2))), flipping tokens and channels
// A flip is a view with negative strides, so nothing is copied, and f(RC(x)) = RC(f(x)) to the bit. BiMamba, the f of
// Caduceus, is a scan and a second one with reversed{}, adding{}.
#pragma once

#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// The same elements in the opposite order along an axis.
template <class T, std::size_t Rank>
constexpr view<T, Rank> flip(view<T, Rank> x, std::size_t axis) {
    if (x.shape[axis] > 0) x.data += (x.shape[axis] - 1) * x.strides[axis];
    x.strides[axis] = -x.strides[axis];
    return x;
}

/// Runs f(x, y), x and y (B, N, D), on both halves of the channels. Throws shape_error before f is called.
template <class X, class Y, class F>
void reverse_complement(const view<X, 3>& x, const view<Y, 3>& y, const F& f) {
    static constexpr const char* op = "reverse_complement";
    for (std::size_t a = 0; a < 2; ++a)
        require_shape(x.shape[a] == y.shape[a], op, "y has extent ", y.shape[a], " on axis ", a, ", x has ",
                      x.shape[a]);
    require_shape(x.shape[2] % 2 == 0, op, "x has ", x.shape[2], " channels, not an even number");
    require_shape(y.shape[2] % 2 == 0, op, "y has ", y.shape[2], " channels, not an even number");
    const auto half = [](const auto& v, index_t i) {
        const index_t D = v.shape[2] / 2;
        return slice(v, 2, {i * D, (i + 1) * D});
    };
    const auto turned = [](const auto& v) { return flip(flip(v, 1), 2); };
    f(half(x, 0), half(y, 0));
    f(turned(half(x, 1)), turned(half(y, 1)));
}

/// The complement of a nucleotide, A <-> T and C <-> G; anything else, N among it, is its own.
constexpr char complement(char base) {
    switch (base) {
        case 'A':
            return 'T';
        case 'T':
            return 'A';
        case 'C':
            return 'G';
        case 'G':
            return 'C';
        default:
            return base;
    }
}

}  // namespace heed::inline HEED_ABI
