// SeqBoat [12] (arXiv:2306.11197): a moving average for every token, attention for those that a gate activates.
//
//   m = silu(EMA(x) + omega x);  [g, r] = m W + b (widths 2, C);  p = softmax(g / temperature); active where p1 > p0
//   active tokens, in their order: [z, o, v] = silu(m W2 + b2) (widths Z, H, H); q, k affine maps of z; local attention
//   over the w active tokens before (and after, if not causal): relu(q.k / L + ..)^2, L = w or 2 w, or softmax(q.k /
//   sqrt Z) h = (attention of v * o) W3 + b3, times p1, 0 for the others;  y = silu(r + h + residual)
// Cost: the average, and O(active tokens x w). Scratch: the values in the middle.
#pragma once

#include <vector>

#include "../policy/mask_position.hpp"
#include "../policy/weight.hpp"
#include "ema.hpp"
#include "products.hpp"

namespace heed::inline HEED_ABI {

/// The parameters of a layer of C channels; `back`, if its views have data, is the average from the other end.
template <class T>
struct seqboat_parameters {
    ema_parameters<T> ahead;
    view<const T, 1> omega;           // (C)
    view<const T, 2> w;               // (C, 2 + C)
    view<const T, 1> b;               // (2 + C)
    view<const T, 2> w2;              // (C, Z + 2 H)
    view<const T, 1> b2;              // (Z + 2 H)
    view<const T, 1> kq, bq, kk, bk;  // (Z)
    view<const T, 2> w3;              // (H, C)
    view<const T, 1> b3;              // (C)
    double temperature = 1;
    ema_parameters<T> back = {{}, {}, {}, {}};
};

/// How many active tokens a token sees on each side that it sees at all, beside itself; w >= 1.
struct active_window {
    index_t tokens;
    bool is_causal = true;
};

/// x, residual, y: (B, N, C), x after the norm; returns how many tokens were active in each sequence. y may be the
/// residual itself. Policies: a weight, relu_squared (the default) or softmax, and on{pool, arena}; scratch is for the
/// case that all tokens are active. Throws shape_error or argument_error before y is touched.
template <class A = default_arch, class X, class R, class T, class Y, class... P>
std::vector<index_t> seqboat(const view<X, 3>& x, const view<R, 3>& residual_in, const seqboat_parameters<T>& with,
                             const active_window& near, const view<Y, 3>& y, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "seqboat";
    static_assert((has_one_of<P, roles::weight, roles::context> && ...),
                  "heed: an argument is not a policy of this operator");
    using S = accumulator<std::remove_const_t<X>, T, Y>;
    const auto [B, N, C] = y.shape;
    const index_t Z = with.kq.shape[0], H = with.w3.shape[0];
    check_written(op, writes("y", y));
    check_shape(op, reads("x", x), y.shape, "y");
    check_shape(op, reads("the residual", residual_in), y.shape, "y");
    check_shape(op, reads("W", with.w), {C, C + 2}, "y");
    check_shape(op, reads("b", with.b), {C + 2}, "y");
    check_shape(op, reads("W2", with.w2), {C, Z + 2 * H}, "y, kq, W3");
    check_shape(op, reads("b2", with.b2), {Z + 2 * H}, "kq, W3");
    check_shape(op, reads("W3", with.w3), {H, C}, "y");
    check_shape(op, reads("b3", with.b3), {C}, "y");
    for (const auto* v : {&with.kq, &with.bq, &with.kk, &with.bk})
        check_shape(op, reads("an affine map", *v), {Z}, "kq");
    require_argument(near.tokens >= 1, op, "the window has ", near.tokens, " tokens, the least is 1");
    require_argument(with.temperature > 0, op, "the temperature is ", with.temperature);
    check_apart(op, writes("y", y), reads("x", x));
    check_same_or_apart(op, writes("y", y), reads("the residual", residual_in));

    const auto weight = pick<roles::weight>(relu_squared{}, policies...);
    const window mask = near.is_causal ? window{near.tokens, 0} : window{near.tokens, near.tokens};
    const double reach = static_cast<double>(near.is_causal ? near.tokens : 2 * near.tokens);
    const bool normal = std::remove_const_t<decltype(weight)>::normalised;
    const scale by(normal ? 1 / std::sqrt(static_cast<double>(std::max<index_t>(1, Z))) : 1 / reach);
    std::vector<index_t> counts;
    const auto run = [&, B = B, N = N, C = C](carver& from, const auto& with_context) {
        const auto take = [&](index_t columns) { return dense(from.take<S>(N * columns), {1, N, columns}); };
        const auto m = dense(from.take<S>(B * N * C), {B, N, C});
        const auto base = dense(from.take<S>(B * N * (C + 2)), {B, N, C + 2});
        const auto rows = take(C), out = take(C), projected = take(Z + 2 * H), q = take(Z), k = take(Z), a = take(H);
        const auto share = take(1);
        index_t* const active = from.take<index_t>(N);

        ema<A>(x, with.ahead, m, residual{with.omega}, with_context);
        if (with.back.alpha.data) ema<A>(x, with.back, m, reversed{}, adding{}, with_context);
        if (!from.counts())
            for (S* value = m.data; value < m.data + m.size(); ++value) *value = silu(*value);
        multiply_rows<A>(m, with.w, base, with_context);

        // What the active tokens are put through, in three parts.
        const auto first = [](const auto& v, index_t count) { return slice(v, 1, {0, count}); };
        const auto project = [&](index_t count) {
            multiply_rows<A>(first(rows, count), with.w2, first(projected, count), with_context);
        };
        const auto attend = [&](index_t count) {
            const auto values = slice(first(projected, count), 2, {Z + H, Z + 2 * H});
            attention<A>(one_head(first(q, count)), one_head(first(k, count)), one_head(values),
                         one_head(first(a, count)), mask, weight, by, with_context);
        };
        const auto project_back = [&](index_t count) {
            multiply_rows<A>(first(a, count), with.w3, first(out, count), with_context);
        };
        if (from.counts()) {
            // Few queries go another way than many, and their scratch need not be less.
            for (index_t count = 0; count <= std::min<index_t>(N, lanes<S, A>); ++count)
                project(count), attend(count), project_back(count);
            project(N), attend(N), project_back(N);
            return;
        }
        for (index_t i = 0; i < B; ++i) {
            index_t count = 0;
            for (index_t n = 0; n < N; ++n) {
                const S apart = base(i, n, 1) + static_cast<S>(with.b(1)) - base(i, n, 0) - static_cast<S>(with.b(0));
                if (!(apart > 0)) continue;
                std::copy_n(&m(i, n, 0), C, &rows(0, count, 0));
                share(0, count, 0) = sigmoid(apart / static_cast<S>(with.temperature));
                active[count++] = n;
            }
            counts.push_back(count);
            project(count);
            for (index_t t = 0; t < count; ++t) {
                for (index_t c = 0; c < Z + 2 * H; ++c)
                    projected(0, t, c) = silu(projected(0, t, c) + static_cast<S>(with.b2(c)));
                for (index_t z = 0; z < Z; ++z) {
                    q(0, t, z) = projected(0, t, z) * static_cast<S>(with.kq(z)) + static_cast<S>(with.bq(z));
                    k(0, t, z) = projected(0, t, z) * static_cast<S>(with.kk(z)) + static_cast<S>(with.bk(z));
                }
            }
            attend(count);
            for (index_t t = 0; t < count; ++t)
                for (index_t c = 0; c < H; ++c) a(0, t, c) *= projected(0, t, Z + c);
            project_back(count);
            for (index_t n = 0, t = 0; n < N; ++n) {
                const bool here = t < count && active[t] == n;
                for (index_t c = 0; c < C; ++c) {
                    const S h = here ? (out(0, t, c) + static_cast<S>(with.b3(c))) * share(0, t, 0) : S(0);
                    y(i, n, c) = static_cast<Y>(silu(base(i, n, 2 + c) + static_cast<S>(with.b(2 + c)) + h +
                                                     static_cast<S>(residual_in(i, n, c))));
                }
                t += here;
            }
        }
    };
    in_shared_scratch(op, run, pick<roles::context>(calling_thread{}, policies...));
    return counts;
}

}  // namespace heed::inline HEED_ABI
