// Decays: what a state forgets from token to token. All are natural logs <= 0, -inf allowed (checked; NaN propagates);
// kernels see their exponentials, which are at most 1.
//
//   S_t = A_t S_{t-1} + ...   with A_t  exp(g_h), exp(g_ht), diag(exp(g_ht)) from the left or from the right, or complex
// A gate may have fewer heads than there are states, if it divides them: neighbours share it.
#pragma once

#include <span>
#include <tuple>

#include "../core/half.hpp"
#include "../core/recurrence_kinds.hpp"
#include "../core/roles.hpp"
#include "../simd/sin_cos.hpp"
#include "token_walk.hpp"

namespace heed::inline HEED_ABI {

/// S_t = S_{t-1} + ... (the default).
struct no_decay {
    using role = roles::decay;
    static constexpr decay_kind kind = decay_kind::none;
    void check(const char*, const recurrence_extents&) const {}
    template <class A, class T>
    void load(const token_walk&, index_t, index_t, T*, index_t) const {}
};

/// A constant per head: logs (heads).
template <class S>
struct head_decay {
    using role = roles::decay;
    static constexpr decay_kind kind = decay_kind::scalar;
    std::span<const S> logs;
    explicit head_decay(std::span<const S> g) : logs(g) {}
    explicit head_decay(std::span<S> g) : logs(g) {}
    template <class Container>
        requires(requires(const Container& g) { std::span<const typename Container::value_type>(g); })
    explicit head_decay(const Container& g) : logs(g) {}

    void check(const char* op, const recurrence_extents& x) const {
        const auto count = static_cast<index_t>(logs.size());
        require_shape(count > 0 ? x.heads % count == 0 : x.heads == 0, op, "head_decay has ", count,
                      " heads, which do not divide the ", x.heads, " of the state");
        detail::check_log_decay(op, "head_decay", std::get<0>(parameters()));
    }
    auto parameters() const {
        return std::tuple(view<const S, 1>{logs.data(), {static_cast<index_t>(logs.size())}, {1}});
    }
    template <class A, class T>
    void load(const token_walk& at, index_t h, index_t heads, T* to, index_t) const {
        const auto g = logs[static_cast<std::size_t>(detail::serving(h, heads, static_cast<index_t>(logs.size())))];
        std::fill_n(to, at.count, std::exp(static_cast<T>(g)));
    }
};
template <class Container>
head_decay(const Container&) -> head_decay<typename Container::value_type>;
template <class S>
head_decay(std::span<S>) -> head_decay<std::remove_const_t<S>>;

/// One number per token and head: logs (B, heads, N). Mamba-2, gated delta nets, simple GLA.
template <class S>
struct token_decay {
    using role = roles::decay;
    static constexpr decay_kind kind = decay_kind::scalar;
    view<const S, 3> logs;
    explicit token_decay(view<const S, 3> g) : logs(g) {}
    explicit token_decay(view<S, 3> g) : logs(g) {}

    void check(const char* op, const recurrence_extents& x) const {
        detail::check_gate(op, "token_decay", logs.shape[0], logs.shape[1], logs.shape[2], x.B, x.heads, x.N);
        detail::check_log_decay(op, "token_decay", logs);
    }
    auto token_views() { return std::tie(logs); }
    template <class A, class T>
    void load(const token_walk& at, index_t h, index_t heads, T* to, index_t) const {
        detail::load_numbers(logs, at, detail::serving(h, heads, logs.shape[1]), to);
        detail::exponentiate<A>(to, at.count);
    }
};
template <class S>
token_decay(view<S, 3>) -> token_decay<std::remove_const_t<S>>;

namespace detail {

/// A row of logs per token.
template <class S>
struct row_decay {
    using role = roles::decay;
    view<const S, 4> logs;

    void check(const char* op, const char* name, const char* channel, index_t width, const recurrence_extents& x) const {
        check_gate(op, name, logs.shape[0], logs.shape[1], logs.shape[2], x.B, x.heads, x.N);
        require_shape(logs.shape[3] == width, op, name, " has ", logs.shape[3], " ", channel, " channels, the state has ",
                      width);
        check_log_decay(op, name, logs);
    }
    auto token_views() { return std::tie(logs); }
    template <class A, class T>
    void load(const token_walk& at, index_t h, index_t heads, T* to, index_t stride) const {
        const index_t head = serving(h, heads, logs.shape[1]);
        for (index_t t = 0; t < at.count; ++t)
            exponential_row<A>(row_at(logs, at.b, head, at[t]), logs.strides[3], logs.shape[3], to + t * stride, stride);
    }
};

}  // namespace detail

/// One number per key channel, token and head: logs (B, heads, N, D). GLA, RWKV-6, HGRN2, KDA.
template <class S>
struct channel_decay : detail::row_decay<S> {
    static constexpr decay_kind kind = decay_kind::rows;
    explicit channel_decay(view<const S, 4> g) : detail::row_decay<S>{g} {}
    explicit channel_decay(view<S, 4> g) : detail::row_decay<S>{g} {}
    void check(const char* op, const recurrence_extents& x) const {
        detail::row_decay<S>::check(op, "channel_decay", "key", x.D, x);
    }
};
template <class S>
channel_decay(view<S, 4>) -> channel_decay<std::remove_const_t<S>>;

/// One number per value channel, token and head: logs (B, heads, N, E). Gated slots (ABC, GSA).
template <class S>
struct value_decay : detail::row_decay<S> {
    static constexpr decay_kind kind = decay_kind::columns;
    explicit value_decay(view<const S, 4> g) : detail::row_decay<S>{g} {}
    explicit value_decay(view<S, 4> g) : detail::row_decay<S>{g} {}
    void check(const char* op, const recurrence_extents& x) const {
        detail::row_decay<S>::check(op, "value_decay", "value", x.E, x);
    }
    /// Of some columns only.
    template <class A, class T>
    void load_columns(const token_walk& at, index_t h, index_t heads, T* to, index_t stride, range columns) const {
        value_decay{slice(this->logs, 3, columns)}.template load<A>(at, h, heads, to, stride);
    }
};
template <class S>
value_decay(view<S, 4>) -> value_decay<std::remove_const_t<S>>;

namespace detail {

/// kept and angle, n numbers in whole packs each, become kept cos(angle) and kept sin(angle).
template <class A, class T>
void turn(T* kept, T* angle, index_t n) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    for (index_t i = 0; i < n; i += L) {
        const P by = load_aligned<P>(angle + i), size = load_aligned<P>(kept + i);
        auto both = sin_cos(by);
        if (any(abs(by) > P(sin_cos_reach<T>))) {
            alignas(64) T sine[L], cosine[L];
            for (index_t l = 0; l < L; ++l) sine[l] = std::sin(angle[i + l]), cosine[l] = std::cos(angle[i + l]);
            both = {load_aligned<P>(sine), load_aligned<P>(cosine)};
        }
        store_aligned(kept + i, size * both.cos);
        store_aligned(angle + i, size * both.sin);
    }
}

}  // namespace detail

/// A complex factor per key channel, token and head: exp(magnitude + i phase), magnitude a log <= 0, phase in radians; each
/// (B, heads, N, D), or of width 1 for all channels alike. The state is complex, (2 D, E): its real rows, then its
/// imaginary ones; an output reads the real ones, o = q^T Re(S) [88]. Additive updates only.
template <class S>
struct complex_decay {
    using role = roles::decay;
    static constexpr decay_kind kind = decay_kind::complex;
    view<const S, 4> magnitude, phase;
    complex_decay(view<const S, 4> m, view<const S, 4> p) : magnitude(m), phase(p) {}
    complex_decay(view<S, 4> m, view<S, 4> p) : magnitude(m), phase(p) {}

    void check(const char* op, const recurrence_extents& x) const {
        const auto one = [&](const char* name, const view<const S, 4>& g) {
            detail::check_gate(op, name, g.shape[0], g.shape[1], g.shape[2], x.B, x.heads, x.N);
            require_shape(g.shape[3] == x.D || g.shape[3] == 1, op, name, " has ", g.shape[3],
                          " key channels, the state has ", x.D);
        };
        one("complex_decay's magnitude", magnitude);
        one("complex_decay's phase", phase);
        detail::check_log_decay(op, "complex_decay's magnitude", magnitude);
    }
    auto token_views() { return std::tie(magnitude, phase); }
    template <class A, class T>
    void load(const token_walk& at, index_t h, index_t heads, T* to, index_t stride) const {
        const index_t m_head = detail::serving(h, heads, magnitude.shape[1]), p_head = detail::serving(h, heads, phase.shape[1]);
        for (index_t t = 0; t < at.count; ++t, to += 2 * stride) {
            load_channels<A>(magnitude, at.b, m_head, at[t], to, stride);
            load_channels<A>(phase, at.b, p_head, at[t], to + stride, stride);
            detail::exponentiate<A>(to, stride);
            detail::turn<A>(to, to + stride, stride);
        }
    }

private:
    /// A row of channels; one stands for all, and zeros for those there are not.
    template <class A, class T>
    static void load_channels(const view<const S, 4>& from, index_t b, index_t h, index_t n, T* to, index_t padded) {
        detail::load_row<A>(from, b, h, n, to);
        std::fill(to + from.shape[3], to + padded, from.shape[3] == 1 ? to[0] : T(0));
    }
};
template <class S>
complex_decay(view<S, 4>, view<S, 4>) -> complex_decay<std::remove_const_t<S>>;

/// Says of a state that is only read (recall) that a complex decay has carried it: D real rows, then D imaginary ones.
struct complex_state {
    using role = roles::decay;
    static constexpr decay_kind kind = decay_kind::complex;
    void check(const char*, const recurrence_extents&) const {}
    template <class A, class T>
    void load(const token_walk&, index_t, index_t, T*, index_t) const {}
};

}  // namespace heed::inline HEED_ABI
