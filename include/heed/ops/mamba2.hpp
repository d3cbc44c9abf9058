// Mamba-2, state-space duality (SSD) [17] [39]: linear attention with q = C, k = B, v = d x and a decay.
//
//   S_t = exp(d_t A) S_{t-1} + B_t (d_t x_t)^T      y_t = S_t^T C_t + D x_t
//   d_t = dt_t + bias, or softplus of it, clamped; x, y (B, H, N, P), dt (B, H, N), A (H) <= 0
//   B and C (B, G, N, S), G dividing H; a state is (S, P)
// The steps d are computed as tokens are read, and weigh the rows of B: no copy of x, dt or B is made.
// Cost: 4 S P flops a token and head. y of 16 bits is rounded twice where there is a D. arXiv:2405.21060 (Dao and Gu).
#pragma once

#include <limits>

#include "../policy/score.hpp"
#include "with_default.hpp"

namespace heed::inline HEED_ABI {

/// bias and D per head (none without data); whether steps are log(1 + e^x), and their limits, 0 <= least <= most.
template <class S = float>
struct mamba2_options {
    view<const S, 1> bias = {}, skip = {};
    bool softplus = false;
    double least = 0, most = std::numeric_limits<double>::infinity();
};

namespace detail {

/// d of each token and head.
template <class X, class Y, class S>
struct ssd_steps {
    view<const X, 3> dt;
    view<const Y, 1> decay;  // A
    mamba2_options<S> with;

    auto token_views() { return std::tie(dt); }
    auto parameters() const { return std::tuple(decay, with.bias, with.skip); }

    template <class T>
    T operator()(index_t b, index_t h, index_t n) const {
        T d = static_cast<T>(dt(b, h, n));
        if (with.bias.data) d += static_cast<T>(with.bias(h));
        if (with.softplus) d = std::max(d, T(0)) + std::log1p(std::exp(-std::abs(d)));
        const T least = static_cast<T>(with.least), most = static_cast<T>(with.most);
        return d < least ? least : d > most ? most : d;  // a NaN stays
    }
    void check(const char* op, index_t B, index_t H, index_t N) const {
        constexpr const char* axes[] = {"batch", "heads", "tokens"};
        const extents<3> want{B, H, N};
        for (std::size_t a = 0; a < 3; ++a)
            require_shape(dt.shape[a] == want[a], op, "dt has ", axes[a], " ", dt.shape[a], ", x has ", want[a]);
        const auto per_head = [&](const char* name, index_t n) {
            require_shape(n == H, op, name, " has ", n, " heads, x has ", H);
        };
        per_head("A", decay.shape[0]);
        if (with.bias.data) per_head("bias", with.bias.shape[0]);
        if (with.skip.data) per_head("D", with.skip.shape[0]);
        require_argument(0 <= with.least && with.least <= with.most, op, "steps are limited to [", with.least, ", ",
                         with.most, "]");
        for (index_t h = 0; h < H; ++h) {
            const auto a = static_cast<double>(decay(h));
            require_argument(!(a > 0), op, "A is ", a, ", the most is 0");
        }
    }
};

/// exp(d A), as a decay.
template <class Steps>
struct ssd_decay {
    using role = roles::decay;
    static constexpr decay_kind kind = decay_kind::scalar;
    Steps steps;

    auto token_views() { return steps.token_views(); }
    auto parameters() const { return steps.parameters(); }
    void check(const char*, const recurrence_extents&) const {}
    template <class A, class T>
    void load(const token_walk& at, index_t h, index_t, T* to, index_t) const {
        for (index_t t = 0; t < at.count; ++t)
            to[t] = steps.template operator()<T>(at.b, h, at[t]) * static_cast<T>(steps.decay(h));
        exponentiate<A>(to, at.count);
    }
};

/// d, as the weight of a token.
template <class Steps>
struct ssd_input {
    using role = roles::update;
    static constexpr update_kind kind = update_kind::additive;
    Steps d;

    auto token_views() { return d.token_views(); }
    auto parameters() const { return d.parameters(); }
    index_t steps() const { return 1; }
    void check(const char*, const recurrence_extents&) const {}
    template <class T>
    T weight(index_t b, index_t h, index_t, index_t n) const {
        return d.template operator()<T>(b, h, n);
    }
};

/// y += D x for one head.
template <class A, class X, class Y, class S>
void add_skip(const view<const X>& x, const view<Y>& y, index_t b, index_t h, S skip) {
    using T = accumulator<X, Y>;
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    const T by = static_cast<T>(skip);
    const bool whole = x.strides[3] == 1 && y.strides[3] == 1;
    for (index_t n = 0; n < x.shape[2]; ++n) {
        index_t p = 0;
        for (; whole && p + L <= x.shape[3]; p += L)
            narrow(&y(b, h, n, p), widen<P>(&y(b, h, n, p)) + P(by) * widen<P>(&x(b, h, n, p)));
        for (; p < x.shape[3]; ++p)
            y(b, h, n, p) = static_cast<Y>(static_cast<T>(y(b, h, n, p)) + by * static_cast<T>(x(b, h, n, p)));
    }
}

}  // namespace detail

/// Policies: scale{} (default 1), recurrent{}, chunked{c}, parallel{}, reversed{}, on{...}, state<T> (B, H, S, P).
template <class A = default_arch, class X, class DT, class Log, class In, class Out, class Y, class S = float,
          class... P>
void mamba2(const X& x, const view<DT, 3>& dt, const view<Log, 1>& decay, const In& in, const Out& out, Y&& y,
            const mamba2_options<S>& with, P&&... policies) {
    const auto values = as_view(x);
    const auto to = as_view(y);
    using Steps = detail::ssd_steps<std::remove_const_t<DT>, std::remove_const_t<Log>, S>;
    const Steps d{dt, decay, with};
    d.check("mamba2", values.shape[0], values.shape[1], values.shape[2]);
    const detail::ssd_decay<Steps> forget{d};
    const detail::ssd_input<Steps> write{d};
    detail::with_default(
        scale{1}, [&](auto&... all) { recurrence<A>(out, in, x, y, forget, write, all...); }, policies...);
    if (!with.skip.data) return;
    using x_type = typename decltype(values)::value_type;
    const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
    if constexpr (requires { context.bytes; }) return;  // scratch_size: nothing is computed
    for_tasks(*context.pool, to.shape[0] * to.shape[1], [&](index_t head, index_t) {
        const index_t b = head / to.shape[1], h = head % to.shape[1];
        detail::add_skip<A>(view<const x_type>(values), to, b, h, with.skip(h));
    });
}

/// One token: the operands have N = 1, and s is updated.
template <class A = default_arch, class T, class X, class DT, class Log, class In, class Out, class Y, class S = float,
          class... P>
void mamba2_step(state<T>& s, const X& x, const view<DT, 3>& dt, const view<Log, 1>& decay, const In& in,
                 const Out& out, Y&& y, const mamba2_options<S>& with, P&&... policies) {
    mamba2<A>(x, dt, decay, in, out, y, with, s, recurrent{}, policies...);
}

}  // namespace heed::inline HEED_ABI
