// What follows a linear attention without a normaliser: its outputs over their root mean square, times a gate.
//
//   rms_norm    o = x / sqrt(mean(x^2) + eps) (gain)     over the channels of a head, or of all heads of a token
//   silu_gate   o = x g / (1 + e^-g)
//   gelu_gate   o = x gelu_tanh(g)
// x, g, o (B, H, N, E), any strides; o may be x.
#pragma once

#include <cmath>
#include <span>

#include "../core/view.hpp"
#include "../policy/feature.hpp"
#include "../simd/convert.hpp"
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

inline constexpr index_t channels_at_once = 128;

/// f(y, channels) for pieces of the row (b, h, n), as numbers of T.
template <class A, class T, class X, class F>
void each_piece(const view<X>& x, index_t b, index_t h, index_t n, const F& f) {
    T y[channels_at_once];
    for (index_t e = 0; e < x.shape[3]; e += channels_at_once) {
        const range piece{e, std::min(e + channels_at_once, x.shape[3])};
        widen_row<A>(&x(b, h, n, e), x.strides[3], piece.size(), y);
        f(y, piece);
    }
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
template <class A = default_arch, class X, class O>
void rms_norm(const X& x, O&& o, const rms& by = {}) {
    static constexpr const char* op = "rms_norm";
    const auto in = as_view(x);
    const auto out = as_view(o);
    using T = accumulator<typename decltype(in)::value_type, typename decltype(out)::value_type>;
    detail::check_row_operand(op, "x", in, out);
    const index_t H = out.shape[1], E = out.shape[3];
    by.check(op, H, E);
    const bool shared = static_cast<index_t>(by.gain.size()) == E;
    const index_t group = by.across_heads ? H : 1;
    for (index_t b = 0; b < out.shape[0]; ++b)
        for (index_t first = 0; first < H; first += group)
            for (index_t n = 0; n < out.shape[2]; ++n) {
                T sum = 0;
                for (index_t h = first; h < first + group; ++h)
                    detail::each_piece<A, T>(in, b, h, n, [&](const T* y, range e) {
                        sum += detail::sum_channels(y, e.size(), [](const auto& p) { return p * p; });
                    });
                const T factor = 1 / std::sqrt(sum / static_cast<T>(group * E) + static_cast<T>(by.eps));
                for (index_t h = first; h < first + group; ++h)
                    detail::each_piece<A, T>(in, b, h, n, [&](T* y, range e) {
                        detail::map_channels(y, e.size(), y, [factor](const auto& p) { return p * factor; });
                        const index_t gain = (shared ? 0 : h * E) + e.first;
                        for (index_t i = 0; !by.gain.empty() && i < e.size(); ++i)
                            y[i] *= static_cast<T>(by.gain[static_cast<std::size_t>(gain + i)]);
                        narrow_row<A>(y, e.size(), &out(b, h, n, e.first), out.strides[3]);
                    });
            }
}

namespace detail {
/// o = x f(g).
template <class A, class X, class G, class O, class F>
void gate_rows(const char* op, const view<X>& x, const view<G>& g, const view<O>& o, const F& f) {
    using T = accumulator<std::remove_const_t<X>, std::remove_const_t<G>, O>;
    check_row_operand(op, "x", x, o);
    check_row_operand(op, "g", g, o);
    for (index_t b = 0; b < o.shape[0]; ++b)
        for (index_t h = 0; h < o.shape[1]; ++h)
            for (index_t n = 0; n < o.shape[2]; ++n)
                each_piece<A, T>(g, b, h, n, [&](T* y, range e) {
                    T factor[channels_at_once];
                    widen_row<A>(&x(b, h, n, e.first), x.strides[3], e.size(), factor);
                    map_channels(y, e.size(), y, f);
                    for (index_t i = 0; i < e.size(); ++i) y[i] *= factor[i];
                    narrow_row<A>(y, e.size(), &o(b, h, n, e.first), o.strides[3]);
                });
}
}  // namespace detail

/// o = x silu(g).
template <class A = default_arch, class X, class G, class O>
void silu_gate(const X& x, const G& g, O&& o) {
    detail::gate_rows<A>("silu_gate", as_view(x), as_view(g), as_view(o), [](const auto& p) { return silu(p); });
}
/// o = x gelu_tanh(g).
template <class A = default_arch, class X, class G, class O>
void gelu_gate(const X& x, const G& g, O&& o) {
    detail::gate_rows<A>("gelu_gate", as_view(x), as_view(g), as_view(o), [](const auto& p) { return gelu_tanh(p); });
}

}  // namespace heed::inline HEED_ABI
