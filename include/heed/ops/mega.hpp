// Mega [83] (arXiv:2209.10655): a moving average in front of gated attention with one head; full, or inside chunks.
//
//   m = silu(EMA(x) + omega x);  [u, z, r, h] = m W + b (widths C, Z, H, C);  z = silu(z), r = silu(r), v = silu(x Wv +
//   bv) q = z kq + bq, k = z kk + bk;  a = weights(q k^T) v;  h = silu(h + (a r) Wh + bh);  y = residual + sigmoid(u)
//   (h - residual)
// softmax: logits over sqrt(Z); laplace, relu_squared: over the number of keys the row sees, and rows do not sum to 1.
// The average crosses chunks, attention does not: chunk{c} is a mask. Scratch: the values in the middle.
#pragma once

#include "../policy/area.hpp"
#include "../policy/mask_position.hpp"
#include "../policy/score_gate.hpp"
#include "../policy/weight.hpp"
#include "ema.hpp"
#include "products.hpp"

namespace heed::inline HEED_ABI {

/// The parameters of a layer of C channels, width Z of queries and keys, H of values. `back`, if its views have data,
/// is the average from the other end, which makes the layer see both ways.
template <class T>
struct mega_parameters {
    ema_parameters<T> ahead;
    view<const T, 1> omega;           // (C)
    view<const T, 2> w;               // (C, C + Z + H + C)
    view<const T, 1> b;               // (C + Z + H + C)
    view<const T, 2> wv;              // (C, H)
    view<const T, 1> bv;              // (H)
    view<const T, 1> kq, bq, kk, bk;  // (Z)
    view<const T, 2> wh;              // (H, C)
    view<const T, 1> bh;              // (C)
    ema_parameters<T> back = {{}, {}, {}, {}};
};

/// x, residual, y: (B, N, C), x after the norm. Policies: a mask, a weight, a score (a bias of distances), on{pool,
/// arena}. y may be the residual itself. Throws shape_error or argument_error before y is touched.
template <class A = default_arch, class X, class R, class T, class Y, class... P>
void mega(const view<X, 3>& x, const view<R, 3>& residual_in, const mega_parameters<T>& with, const view<Y, 3>& y,
          const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "mega";
    static_assert((has_one_of<P, roles::mask, roles::weight, roles::score, roles::context> && ...),
                  "heed: an argument is not a policy of mega");
    check_roles<P...>();
    using S = accumulator<std::remove_const_t<X>, T, Y>;
    const auto [B, N, C] = y.shape;
    const index_t Z = with.kq.shape[0], H = with.wv.shape[1], width = 2 * C + Z + H;
    check_written(op, writes("y", y));
    check_shape(op, reads("x", x), y.shape, "y");
    check_shape(op, reads("the residual", residual_in), y.shape, "y");
    check_shape(op, reads("W", with.w), {C, width}, "y, kq, Wv");
    check_shape(op, reads("b", with.b), {width}, "W");
    check_shape(op, reads("Wv", with.wv), {C, H}, "y");
    check_shape(op, reads("bv", with.bv), {H}, "Wv");
    check_shape(op, reads("Wh", with.wh), {H, C}, "Wv, y");
    check_shape(op, reads("bh", with.bh), {C}, "y");
    for (const auto* v : {&with.kq, &with.bq, &with.kk, &with.bk})
        check_shape(op, reads("an affine map", *v), {Z}, "kq");
    check_apart(op, writes("y", y), reads("x", x));
    check_same_or_apart(op, writes("y", y), reads("the residual", residual_in));

    const auto run = [&, B = B, N = N, C = C](carver& from, const auto& with_context) {
        const auto take = [&](index_t columns) {
            return dense(from.take<S>(B * N * columns), {B, N, columns});
        };
        const auto m = take(C), base = take(width), v = take(H), a = take(H), q = take(Z), k = take(Z);
        const auto each = [&](index_t columns, const auto& f) {
            for (index_t i = 0; i < (from.counts() ? 0 : B); ++i)
                for (index_t n = 0; n < N; ++n)
                    for (index_t c = 0; c < columns; ++c) f(i, n, c);
        };
        const auto number = [](const auto& x_) { return static_cast<S>(x_); };

        ema<A>(x, with.ahead, m, residual{with.omega}, with_context);
        if (with.back.alpha.data) ema<A>(x, with.back, m, reversed{}, adding{}, with_context);
        each(C, [&](index_t i, index_t n, index_t c) { m(i, n, c) = silu(m(i, n, c)); });
        multiply_rows<A>(m, with.w, base, with_context);
        multiply_rows<A>(x, with.wv, v, with_context);
        each(H, [&](index_t i, index_t n, index_t c) { v(i, n, c) = silu(v(i, n, c) + number(with.bv(c))); });
        each(Z, [&](index_t i, index_t n, index_t c) {
            const S z = silu(base(i, n, C + c) + number(with.b(C + c)));
            q(i, n, c) = z * number(with.kq(c)) + number(with.bq(c));
            k(i, n, c) = z * number(with.kk(c)) + number(with.bk(c));
        });

        const auto mask = pick<roles::mask>(everything{}, policies...);
        const auto weight = pick<roles::weight>(softmax{}, policies...);
        const auto score = score_of(pick<roles::score>(identity{}, policies...));
        if constexpr (std::remove_const_t<decltype(weight)>::normalised) {
            attention<A>(one_head(q), one_head(k), one_head(v), one_head(a), mask, weight, score, with_context);
        } else {
            const auto shares = dense(from.take<S>(B * N), {B, 1, N});
            if (!from.counts()) count_rows(mask, N, 0, shares);
            each(1, [&](index_t i, index_t n, index_t) {
                S& share = shares(i, 0, n);
                share = share > 0 ? 1 / share : S(0);
            });
            attention<A>(one_head(q), one_head(k), one_head(v), one_head(a), mask, weight,
                         scale{1} >> rows_scale{shares} >> score, with_context);
        }
        each(H, [&](index_t i, index_t n, index_t c) {
            a(i, n, c) *= silu(base(i, n, C + Z + c) + number(with.b(C + Z + c)));
        });
        multiply_rows<A>(a, with.wh, m, with_context);
        each(C, [&](index_t i, index_t n, index_t c) {
            const index_t at = width - C + c;
            const S h = silu(base(i, n, at) + number(with.b(at)) + m(i, n, c) + number(with.bh(c)));
            const S old = number(residual_in(i, n, c)), open = sigmoid(base(i, n, c) + number(with.b(c)));
            y(i, n, c) = static_cast<Y>(old + open * (h - old));
        });
    };
    in_shared_scratch(op, run, pick<roles::context>(calling_thread{}, policies...));
}

}  // namespace heed::inline HEED_ABI
