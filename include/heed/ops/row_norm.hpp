// What follows a linear attention without a normaliser: norms of its outputs (policy/row_norm.hpp), times a gate.
//
//   rms_norm    o = x / sqrt(mean(x^2) + eps) (gain)
//   layer_norm  o = (x - mean) / sqrt(variance + eps) (gain) (+ shift)
//   silu_gate   o = x g / (1 + e^-g)
//   gelu_gate   o = x gelu_tanh(g)
// x, g, o (B, H, N, E), any strides; o may be x. Policies: on{pool}, which shares out the rows.
#pragma once

#include "../policy/row_norm.hpp"
#include "row_maps.hpp"

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

/// f(b, h, n) for groups of heads of all tokens of o, h the first head of a group.
template <class O, class F, class... P>
void each_group_of_heads(const view<O>& o, index_t group, const F& f, const P&... policies) {
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of norms and gates of rows");
    const index_t groups = o.shape[1] / group;
    each_token(pick<roles::context>(calling_thread{}, policies...), o.shape[0] * groups, o.shape[2],
               group * o.shape[3], [&](index_t i, index_t n) { f(i / groups, i % groups * group, n); });
}

template <class A, class Norm, class X, class O, class... P>
void norm_rows(const char* op, const view<X>& x, const view<O>& o, const Norm& by, const P&... policies) {
    using T = accumulator<std::remove_const_t<X>, O>;
    check_row_operand(op, "x", x, o);
    const index_t H = o.shape[1], E = o.shape[3];
    by.check(op, H, E);
    const index_t group = by.across_heads ? std::max<index_t>(1, H) : 1;
    const auto norm = [&](index_t b, index_t first, index_t n) {
        normalise_row<T>(by, group * E, [&](auto last, const auto& f) {
            for (index_t h = first; h < first + group; ++h)
                each_piece<A, T>(x, b, h, n, [&](T* y, range e) {
                    f(y, e.size(), h * E + e.first);
                    if constexpr (last) narrow_row<A>(y, e.size(), &o(b, h, n, e.first), o.strides[3]);
                });
        });
    };
    each_group_of_heads(o, group, norm, policies...);
}

/// o = x f(g).
template <class A, class X, class G, class O, class F, class... P>
void gate_rows(const char* op, const view<X>& x, const view<G>& g, const view<O>& o, const F& f, const P&... policies) {
    using T = accumulator<std::remove_const_t<X>, std::remove_const_t<G>, O>;
    check_row_operand(op, "x", x, o);
    check_row_operand(op, "g", g, o);
    const auto gate = [&](index_t b, index_t h, index_t n) {
        each_piece<A, T>(g, b, h, n, [&](T* y, range e) {
            T factor[channels_at_once];
            widen_row<A>(&x(b, h, n, e.first), x.strides[3], e.size(), factor);
            map_channels(y, e.size(), y, f);
            for (index_t i = 0; i < e.size(); ++i) y[i] *= factor[i];
            narrow_row<A>(y, e.size(), &o(b, h, n, e.first), o.strides[3]);
        });
    };
    each_group_of_heads(o, 1, gate, policies...);
}

}  // namespace detail

/// o = x / sqrt(mean(x^2) + eps), over the channels of one head, or of all heads of a token.
template <class A = default_arch, class X, class O, class... P>
void rms_norm(const X& x, O&& o, const rms& by = {}, const P&... policies) {
    detail::norm_rows<A>("rms_norm", as_view(x), as_view(o), by, policies...);
}
/// The same with the mean subtracted before: layer norm across heads, group norm of each by itself.
template <class A = default_arch, class X, class O, class... P>
void layer_norm(const X& x, O&& o, const centred& by = {}, const P&... policies) {
    detail::norm_rows<A>("layer_norm", as_view(x), as_view(o), by, policies...);
}

/// o = x silu(g).
template <class A = default_arch, class X, class G, class O, class... P>
void silu_gate(const X& x, const G& g, O&& o, const P&... policies) {
    detail::gate_rows<A>(
        "silu_gate", as_view(x), as_view(g), as_view(o), [](const auto& p) { return silu(p); }, policies...);
}
/// o = x gelu_tanh(g).
template <class A = default_arch, class X, class G, class O, class... P>
void gelu_gate(const X& x, const G& g, O&& o, const P&... policies) {
    detail::gate_rows<A>(
        "gelu_gate", as_view(x), as_view(g), as_view(o), [](const auto& p) { return gelu_tanh(p); }, policies...);
}

}  // namespace heed::inline HEED_ABI
