// What follows a linear attention without a normaliser: its outputs over their root mean square, times a gate.
//
//   rms_norm    o = x / sqrt(mean(x^2) + eps) (gain)     over the channels of a head, or of all heads of a token
//   silu_gate   o = x g / (1 + e^-g)
// x, g, o (B, H, N, E), any strides; o may be x. One pass.
#pragma once

#include <cmath>
#include <span>

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../simd/gates.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// Throws unless x has o's shape, and is o or apart from it.
template <class X, class O>
void check_row_operand(const char* op, const char* name, const view<X>& x, const view<O>& o) {
    constexpr const char* axes[] = {"batch", "head", "token", "channel"};
    for (std::size_t a = 0; a < 4; ++a) {
        require_shape(x.shape[a] == o.shape[a], op, axes[a], " extent of o is ", o.shape[a], ", of ", name, " ",
                      x.shape[a]);
        require_shape(o.shape[a] <= 1 || o.strides[a] != 0, op, axes[a], " stride of o is 0");
    }
    const bool same = static_cast<const void*>(x.data) == static_cast<const void*>(o.data) && x.strides == o.strides &&
                      sizeof(X) == sizeof(O);
    require_shape(same || !overlap(o, x), op, "o overlaps ", name, " and is not the same view");
}

template <class T>
T square(T x) {
    return x * x;
}

}  // namespace detail

/// How rms_norm divides: eps stands inside the root; channels of one head, or of all heads of a token together; gain,
/// if given, of E numbers or H E.
struct rms {
    double eps = 1e-6;
    bool across_heads = false;
    std::span<const float> gain = {};
    rms() = default;
    explicit rms(double least, bool all_heads = false, std::span<const float> by = {})
        : eps(least), across_heads(all_heads), gain(by) {}

    void check(const char* op, index_t H, index_t E) const {
        const auto gains = static_cast<index_t>(gain.size());
        require_shape(gains == 0 || gains == E || gains == H * E, op, "there are ", gains, " gains, rows have ", E,
                      " channels in ", H, " heads");
        require_argument(eps >= 0, op, "eps is ", eps, ", the least is 0");
    }
};

/// o = x / sqrt(mean(x^2) + eps).
template <class X, class O>
void rms_norm(const X& x, O&& o, const rms& by = {}) {
    static constexpr const char* op = "rms_norm";
    const auto in = as_view(x);
    const auto out = as_view(o);
    using R = typename decltype(out)::value_type;
    using T = accumulator<typename decltype(in)::value_type, R>;
    detail::check_row_operand(op, "x", in, out);
    const auto [B, H, N, E] = out.shape;
    by.check(op, H, E);
    const auto gains = static_cast<index_t>(by.gain.size());
    const index_t group = by.across_heads ? H : 1;
    for (index_t b = 0; b < B; ++b)
        for (index_t first = 0; first < H; first += group)
            for (index_t n = 0; n < N; ++n) {
                T sum = 0;
                for (index_t h = first; h < first + group; ++h)
                    for (index_t e = 0; e < E; ++e) sum += detail::square(static_cast<T>(in(b, h, n, e)));
                const T factor = 1 / std::sqrt(sum / static_cast<T>(group * E) + static_cast<T>(by.eps));
                for (index_t h = first; h < first + group; ++h)
                    for (index_t e = 0; e < E; ++e) {
                        const auto i = static_cast<std::size_t>(gains == E ? e : h * E + e);
                        const T gain = gains == 0 ? T(1) : static_cast<T>(by.gain[i]);
                        out(b, h, n, e) = static_cast<R>(static_cast<T>(in(b, h, n, e)) * factor * gain);
                    }
            }
}

/// o = x silu(g).
template <class X, class G, class O>
void silu_gate(const X& x, const G& g, O&& o) {
    const auto in = as_view(x);
    const auto gate = as_view(g);
    const auto out = as_view(o);
    using R = typename decltype(out)::value_type;
    using T = accumulator<typename decltype(in)::value_type, typename decltype(gate)::value_type, R>;
    detail::check_row_operand("silu_gate", "x", in, out);
    detail::check_row_operand("silu_gate", "g", gate, out);
    for (index_t b = 0; b < out.shape[0]; ++b)
        for (index_t h = 0; h < out.shape[1]; ++h)
            for (index_t n = 0; n < out.shape[2]; ++n)
                for (index_t e = 0; e < out.shape[3]; ++e) {
                    const auto y = static_cast<T>(gate(b, h, n, e));
                    out(b, h, n, e) = static_cast<R>(static_cast<T>(in(b, h, n, e)) * silu(y));
                }
}

}  // namespace heed::inline HEED_ABI
