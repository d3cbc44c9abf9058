// Logs of forget gates from their logits, as decays want them.
//
//   g = log(b + (1 - b) sigmoid(x)) / t     t = 16 in GLA, b a lower bound in HGRN2
// x, g: views of one shape and any rank; g may be x. No digits are lost where a gate is near 1.
#pragma once

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../simd/gates.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// f(x, o) for every pair of elements of two views of one shape.
template <class X, class O, std::size_t Rank, class F>
void each_pair(const view<X, Rank>& x, const view<O, Rank>& o, const F& f) {
    for (index_t i = 0; i < o.shape[0]; ++i) {
        if constexpr (Rank == 1) {
            f(x.data[i * x.strides[0]], o.data[i * o.strides[0]]);
        } else {
            view<X, Rank - 1> from{x.data + i * x.strides[0], {}, {}};
            view<O, Rank - 1> to{o.data + i * o.strides[0], {}, {}};
            for (std::size_t a = 1; a < Rank; ++a) {
                from.shape[a - 1] = to.shape[a - 1] = o.shape[a];
                from.strides[a - 1] = x.strides[a];
                to.strides[a - 1] = o.strides[a];
            }
            each_pair(from, to, f);
        }
    }
}

}  // namespace detail

/// t > 0, 0 <= b < 1.
template <class X, class G>
void log_gates(const X& x, G&& g, double t = 1, double b = 0) {
    static constexpr const char* op = "log_gates";
    const auto in = as_view(x);
    const auto out = as_view(g);
    using S = typename decltype(in)::value_type;
    using R = typename decltype(out)::value_type;
    using T = accumulator<S, R>;
    require_argument(t > 0, op, "t is ", t, ", must be above 0");
    require_argument(b >= 0 && b < 1, op, "the bound is ", b, ", must be in [0, 1)");
    for (std::size_t a = 0; a < decltype(in)::rank; ++a)
        require_shape(in.shape[a] == out.shape[a], op, "g has extent ", out.shape[a], " on axis ", a, ", x has ",
                      in.shape[a]);
    const bool same = static_cast<const void*>(in.data) == static_cast<const void*>(out.data) &&
                      in.strides == out.strides && sizeof(S) == sizeof(R);
    require_shape(same || !overlap(in, out), op, "g overlaps x and is not the same view");
    const auto bound = static_cast<T>(b), by = static_cast<T>(1 / t);
    detail::each_pair(in, out, [&](const S& from, R& to) {
        const T y = static_cast<T>(from);
        const T log = b == 0  ? log_sigmoid(y)
                      : y > 0 ? std::log1p((bound - 1) * sigmoid(-y))  // near 1
                              : std::log(bound + (1 - bound) * sigmoid(y));
        to = static_cast<R>(by * log);
    });
}

}  // namespace heed::inline HEED_ABI
