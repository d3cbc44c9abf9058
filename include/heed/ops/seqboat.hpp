// SeqBoat [12] (arXiv:2306.11197): a moving average for every token, attention for those that a gate activates.
//
//   m = silu(EMA(x) + omega x);  [g, r] = m W + b (widths 2, C);  p = softmax(g / temperature); active where p1 > p0
//   active tokens, in their order: [z, o, v] = silu(m W2 + b2) (widths Z, H, H); q, k affine maps of z; local attention
//   over the w active tokens before (and after, if not causal): relu(q.k / L)^2, L = w or 2 w, or softmax(q.k / sqrt Z)
//   h = (attention of v * o) W3 + b3, times p1, 0 for the others;  y = silu(r + h + residual)
// Cost: the average, and O(active tokens x w). A causal sequence leaves behind S numbers a channel and the keys and
// values of its last w active tokens. Scratch: the values in the middle.
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

/// What B sequences of a causal layer leave behind: averages, and the keys and values of the last `tokens` active ones.
/// Copies are snapshots.
template <std::floating_point T>
class seqboat_state {
public:
    seqboat_state(index_t B, index_t C, index_t S, index_t Z, index_t H, index_t tokens)
        : shape_{B, C, S, Z, H, tokens},
          averages_(static_cast<std::size_t>(B * C * S)),
          rows_(static_cast<std::size_t>(B * tokens * (Z + H))),
          counts_(static_cast<std::size_t>(B)) {}

    /// (B, C, S); channels lie next to each other.
    view<T, 3> averages() {
        const auto [B, C, S] = std::array{shape_.B, shape_.C, shape_.S};
        return {averages_.data(), {B, C, S}, {C * S, 1, C}};
    }
    /// Active tokens held of a sequence: their keys, then their values, (1, count, Z + H), oldest first.
    index_t count(index_t b) const { return counts_[static_cast<std::size_t>(b)]; }
    view<T, 3> rows(index_t b) {
        const index_t width = shape_.Z + shape_.H;
        return dense(rows_.data() + b * shape_.tokens * width, {1, count(b), width});
    }
    index_t tokens() const { return shape_.tokens; }
    std::size_t bytes() const { return (averages_.size() + rows_.size()) * sizeof(T); }

    /// Holds the last of keys (1, n, Z) and values (1, n, H) of a sequence.
    void keep(index_t b, const view<T, 3>& keys, const view<T, 3>& values) {
        const index_t n = keys.shape[1], kept = std::min(n, shape_.tokens);
        counts_[static_cast<std::size_t>(b)] = kept;
        for (index_t i = 0; i < kept; ++i) {
            T* const row = &rows(b)(0, i, 0);
            std::copy_n(&keys(0, n - kept + i, 0), shape_.Z, row);
            std::copy_n(&values(0, n - kept + i, 0), shape_.H, row + shape_.Z);
        }
    }
    void check(const char* op, index_t B, index_t Z, index_t H) const {
        require_shape(shape_.B == B, op, "the state is of ", shape_.B, " sequences, y of ", B);
        require_shape(shape_.Z == Z && shape_.H == H, op, "the state has keys and values of widths ", shape_.Z, " and ",
                      shape_.H, ", the layer of ", Z, " and ", H);
    }

private:
    struct {
        index_t B, C, S, Z, H, tokens;
    } shape_;
    std::vector<T> averages_, rows_;
    std::vector<index_t> counts_;
};

namespace detail {

template <class X, class R, class T, class Y>
void check_seqboat(const char* op, const view<X, 3>& x, const view<R, 3>& residual_in,
                   const seqboat_parameters<T>& with, const active_window& near, const view<Y, 3>& y) {
    const index_t C = y.shape[2], Z = with.kq.shape[0], H = with.w3.shape[0];
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
    const auto weights = std::tuple(reads("omega", with.omega), reads("W", with.w), reads("b", with.b),
                                    reads("W2", with.w2), reads("b2", with.b2), reads("W3", with.w3),
                                    reads("b3", with.b3), reads("an affine map", with.kq),
                                    reads("an affine map", with.bq), reads("an affine map", with.kk),
                                    reads("an affine map", with.bk));
    check_apart_from_all(op, std::tuple_cat(std::tuple(reads("x", x)), weights), std::tuple(writes("y", y)));
    check_same_or_apart(op, writes("y", y), reads("the residual", residual_in));
}

/// The layer over the tokens after those that s has seen, or, if it is null, over whole sequences. S: the arithmetic.
template <class A, class S, class X, class R, class T, class Y, class... P>
std::vector<index_t> run_seqboat(seqboat_state<S>* s, const view<X, 3>& x, const view<R, 3>& residual_in,
                                 const seqboat_parameters<T>& with, const active_window& near, const view<Y, 3>& y,
                                 const P&... policies) {
    static constexpr const char* op = "seqboat";
    static_assert((has_one_of<P, roles::weight, roles::packed, roles::context> && ...),
                  "heed: an argument is not a policy of this operator");
    check_seqboat(op, x, residual_in, with, near, y);
    const auto [B, N, C] = y.shape;
    const auto packs = pick<roles::packed>(not_packed{}, policies...);
    const auto order = sequences::of(op, B, N, packs);
    const index_t Z = with.kq.shape[0], H = with.w3.shape[0], before = s ? near.tokens : 0;
    if (s) {
        s->check(op, order.count(), Z, H);
        require_argument(!with.back.alpha.data, op, "a state has no average from the other end");
    }
    const auto weight = pick<roles::weight>(relu_squared{}, policies...);
    const window mask = near.is_causal ? window{near.tokens, 0} : window{near.tokens, near.tokens};
    const double reach = static_cast<double>(near.is_causal ? near.tokens : 2 * near.tokens);
    const bool normal = std::remove_const_t<decltype(weight)>::normalised;
    const scale by(normal ? 1 / std::sqrt(static_cast<double>(std::max<index_t>(1, Z))) : 1 / reach);
    std::vector<index_t> counts;
    const auto run = [&, B = B, N = N, C = C](carver& from, const auto& context) {
        const auto take = [&](index_t rows, index_t columns) {
            return dense(from.take<S>(rows * columns), {1, rows, columns});
        };
        const auto m = dense(from.take<S>(B * N * C), {B, N, C});
        const auto base = dense(from.take<S>(B * N * (C + 2)), {B, N, C + 2});
        const auto rows = take(N, C), out = take(N, C), projected = take(N, Z + 2 * H), q = take(N, Z), a = take(N, H);
        const auto keys = take(before + N, Z), values = take(before + N, H), share = take(N, 1);
        index_t* const active = from.take<index_t>(N);
        const auto map = [&](const auto& to, const auto& f, const auto&... in) {
            map_rows<A, S>(context, to, f, in...);
        };

        ema<A>(x, with.ahead, m, residual{with.omega}, carry{s ? s->averages() : view<S, 3>{}}, packs, context);
        if (with.back.alpha.data) ema<A>(x, with.back, m, reversed{}, adding{}, packs, context);
        map(m, silu_of, m);
        multiply_rows<A>(m, with.w, base, context);

        // Puts `count` active tokens, whose rows of m are gathered, through the attention, behind `kept` earlier ones.
        const auto attend = [&](index_t kept, index_t count) {
            const auto first = [&](const auto& v) { return slice(v, 1, {0, count}); };
            const auto seen = [&](const auto& v) { return slice(v, 1, {0, kept + count}); };
            const auto fresh = [&](const auto& v) { return slice(v, 1, {kept, kept + count}); };
            const auto part = [&](index_t at, index_t size) { return slice(first(projected), 2, {at, at + size}); };
            const auto of = [&](const auto& constant) { return as_rows(constant, {1, count, 0}); };
            multiply_rows<A>(first(rows), with.w2, first(projected), context);
            map(first(projected), silu_of_sum, first(projected), of(with.b2));
            map(first(q), times_plus, part(0, Z), of(with.kq), of(with.bq));
            map(fresh(keys), times_plus, part(0, Z), of(with.kk), of(with.bk));
            map(fresh(values), as_it_is, part(Z + H, H));
            attention<A>(one_head(first(q)), one_head(seen(keys)), one_head(seen(values)), one_head(first(a)), mask,
                         weight, by, context);
            map(first(a), product_of, first(a), part(Z, H));
            multiply_rows<A>(first(a), with.w3, first(out), context);
        };
        for (index_t i = 0; i < order.count(); ++i) {
            const index_t kept = s ? s->count(i) : 0, b = order.batch(i);
            if (from.counts()) {
                if (i > 0 && !s) break;  // all are alike
                // Few queries go another way than many, and their scratch need not be less.
                for (index_t count = 0; count <= std::min<index_t>(N, lanes<S, A>); ++count) attend(kept, count);
                attend(kept, N);
                continue;
            }
            index_t count = 0;
            for (index_t n = order.tokens(i).first; n < order.tokens(i).last; ++n) {
                const S apart = base(b, n, 1) + static_cast<S>(with.b(1)) - base(b, n, 0) - static_cast<S>(with.b(0));
                if (!(apart > 0)) continue;
                std::copy_n(&m(b, n, 0), C, &rows(0, count, 0));
                share(0, count, 0) = sigmoid(apart / static_cast<S>(with.temperature));
                active[count++] = n;
            }
            counts.push_back(count);
            for (index_t t = 0; t < kept; ++t) {
                const S* const row = &s->rows(i)(0, t, 0);
                std::copy_n(row, Z, &keys(0, t, 0));
                std::copy_n(row + Z, H, &values(0, t, 0));
            }
            attend(kept, count);
            for (index_t t = 0; t < count; ++t)
                for (index_t c = 0; c < C; ++c)
                    base(b, active[t], 2 + c) += (out(0, t, c) + static_cast<S>(with.b3(c))) * share(0, t, 0);
            if (s) s->keep(i, slice(keys, 1, {0, kept + count}), slice(values, 1, {0, kept + count}));
        }
        const auto r = slice(base, 2, {2, 2 + C});
        add_bias<A>(context, r, slice(with.b, 0, {2, 2 + C}));
        map(y, silu_of_sum, r, residual_in);
    };
    in_shared_scratch(op, run, pick<roles::context>(calling_thread{}, policies...));
    return counts;
}

}  // namespace detail

/// x, residual, y: (B, N, C), x after the norm; returns how many tokens were active in each sequence. y may be the
/// residual itself. Policies: a weight, relu_squared (the default) or softmax, packed{offsets}, on{pool, arena};
/// scratch is for the case that all tokens are active. Throws shape_error or argument_error before y is touched.
template <class A = default_arch, class X, class R, class T, class Y, class... P>
std::vector<index_t> seqboat(const view<X, 3>& x, const view<R, 3>& residual_in, const seqboat_parameters<T>& with,
                             const active_window& near, const view<Y, 3>& y, const P&... policies) {
    using S = accumulator<std::remove_const_t<X>, T, Y>;
    return detail::run_seqboat<A>(static_cast<seqboat_state<S>*>(nullptr), x, residual_in, with, near, y, policies...);
}
/// The same, causal, for the tokens after those that s has seen, any number; with one, a step of decoding.
template <class A = default_arch, class S, class X, class R, class T, class Y, class... P>
std::vector<index_t> seqboat(seqboat_state<S>& s, const view<X, 3>& x, const view<R, 3>& residual_in,
                             const seqboat_parameters<T>& with, const view<Y, 3>& y, const P&... policies) {
    static_assert(std::is_same_v<S, accumulator<std::remove_const_t<X>, T, Y>>,
                  "heed: a state is of the type that sums are of");
    return detail::run_seqboat<A>(&s, x, residual_in, with, active_window{s.tokens()}, y, policies...);
}

}  // namespace heed::inline HEED_ABI
