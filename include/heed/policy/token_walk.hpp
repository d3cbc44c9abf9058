// Where the tokens of a head stand in the views of a call: a batch entry, and tokens from `first` on by `step`, forwards or
// backwards.
#pragma once

#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "../simd/math.hpp"

namespace heed::inline HEED_ABI {

struct token_walk {
    index_t b = 0;
    index_t first = 0;
    index_t step = 1;
    index_t count = 0;

    constexpr index_t operator[](index_t t) const { return first + t * step; }
    /// `n` of its tokens, from t on.
    constexpr token_walk part(index_t t, index_t n) const { return {b, first + t * step, step, n}; }
    /// The same tokens where each has `n` rows, in their order of time.
    constexpr index_t row(index_t t, index_t i, index_t n) const { return (*this)[t] * n + i; }
};

namespace detail {

/// The head of a view that serves head h of `heads`, neighbours sharing one.
constexpr index_t serving(index_t h, index_t heads, index_t of) { return h * of / heads; }

/// Where row (b, h, n) of a view begins; nowhere, where rows without channels have no memory.
template <class S>
HEED_INLINE const S* row_at(const view<const S, 4>& x, index_t b, index_t h, index_t n) {
    return x.data ? x.data + b * x.strides[0] + h * x.strides[1] + n * x.strides[2] : nullptr;
}
/// Row (b, h, n) of a view, widened to T.
template <class A, class S, class T>
HEED_INLINE void load_row(const view<const S, 4>& x, index_t b, index_t h, index_t n, T* to) {
    widen_row<A>(row_at(x, b, h, n), x.strides[3], x.shape[3], to);
}

/// One number a token of a view (b, h, n).
template <class S, class T>
void load_numbers(const view<const S, 3>& x, const token_walk& at, index_t h, T* to) {
    for (index_t t = 0; t < at.count; ++t) to[t] = static_cast<T>(x(at.b, h, at[t]));
}

/// x[i] = e^x[i], i < n; reads and writes whole packs.
template <class A, class T>
void exponentiate(T* x, index_t n) {
    using P = pack<T, A>;
    for (index_t i = 0; i < n; i += static_cast<index_t>(P::size)) store_aligned(x + i, exp(load_aligned<P>(x + i)));
}

/// to[i] = e^from[i], i < n, elements of storage type S `step` apart; 1 from n to `padded`, whole packs.
template <class A, class S, class T>
void exponential_row(const S* from, index_t step, index_t n, T* to, index_t padded) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    index_t i = 0;
    if (step == 1)
        for (; i + L <= n; i += L) store_aligned(to + i, exp(widen<P>(from + i)));
    if (i == padded) return;
    const index_t whole = i;
    for (; i < padded; ++i) to[i] = i < n ? static_cast<T>(from[i * step]) : T(0);
    exponentiate<A>(to + whole, padded - whole);
}

/// Throws unless a gate of so many heads serves `heads`, over B sequences and N tokens.
inline void check_gate(const char* op, const char* name, index_t b, index_t h, index_t n, index_t B, index_t heads,
                       index_t N) {
    require_shape(b == B, op, name, " has batch ", b, ", q has ", B);
    require_shape(h > 0 ? heads % h == 0 : heads == 0, op, name, " has ", h, " heads, which do not divide the ", heads,
                  " of the state");
    require_shape(n == N, op, name, " has ", n, " tokens, k has ", N);
}

/// Throws where one of n log decays, `stride` apart, is above 0. NaN passes, and propagates.
template <class S>
void check_log_decays(const char* op, const char* name, const S* x, index_t stride, index_t n) {
    using T = accumulator<S>;
    using P = pack<T>;
    constexpr auto L = static_cast<index_t>(P::size);
    index_t i = 0;
    if (stride == 1) {
        P top(T(0));
        for (; i + L <= n; i += L) top = max(widen<P>(x + i), top);  // the second operand where the first is NaN
        if (any(top > P(T(0)))) i = 0;
    }
    for (; i < n; ++i) {
        const double g = static_cast<double>(x[i * stride]);
        require_argument(!(g > 0), op, name, " has a log decay of ", g, ", the most is 0");
    }
}
template <class S, std::size_t Rank>
void check_log_decay(const char* op, const char* name, const view<const S, Rank>& x) {
    if constexpr (Rank == 1) {
        check_log_decays(op, name, x.data, x.strides[0], x.shape[0]);
    } else {
        for (index_t i = 0; i < x.shape[0]; ++i) {
            view<const S, Rank - 1> inner{x.data ? x.data + i * x.strides[0] : nullptr, {}, {}};
            for (std::size_t a = 1; a < Rank; ++a) {
                inner.shape[a - 1] = x.shape[a];
                inner.strides[a - 1] = x.strides[a];
            }
            check_log_decay(op, name, inner);
        }
    }
}

}  // namespace detail

/// The extents a recurrence's policies meet: B sequences of N tokens, `heads` states of D rows and E columns.
struct recurrence_extents {
    index_t B = 0, heads = 0, N = 0, D = 0, E = 0;
};

}  // namespace heed::inline HEED_ABI
