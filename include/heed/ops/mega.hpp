// Mega [83] (arXiv:2209.10655): a moving average in front of gated attention with one head; full, or inside chunks.
//
//   m = silu(EMA(x) + omega x);  [u, z, r, h] = m W + b (widths C, Z, H, C);  z = silu(z), r = silu(r)
//   v = silu(x Wv + bv), q = z kq + bq, k = z kk + bk;  a = weights(q k^T) v;  h = silu(h + (a r) Wh + bh)
//   y = residual + sigmoid(u) (h - residual)
// softmax: logits over sqrt(Z); laplace, relu_squared: over the number of keys the row sees, and rows do not sum to 1.
// The average crosses chunks, attention does not: chunk{c} is a mask. A causal sequence leaves behind S numbers a
// channel, and the keys and values of its chunk. Scratch: the values in the middle.
#pragma once

#include "../policy/area.hpp"
#include "../policy/mask_position.hpp"
#include "../policy/mask_segment.hpp"
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

/// What B sequences of a causal layer leave behind: averages, and the keys and values that later tokens see, those of
/// their chunk of `chunk` tokens, or of all tokens if that is 0. Copies are snapshots.
template <std::floating_point T>
class mega_state {
public:
    mega_state(index_t B, index_t C, index_t S, index_t Z, index_t H, index_t chunk = 0)
        : B_(B), C_(C), S_(S), Z_(Z), H_(H), chunk_(chunk), averages_(static_cast<std::size_t>(B * C * S)) {
        require_argument(chunk >= 0, "mega_state", "chunks have ", chunk, " tokens, the least is 0");
        reserve(chunk);
    }
    /// (B, C, S); channels lie next to each other.
    view<T, 3> averages() { return {averages_.data(), {B_, C_, S_}, {C_ * S_, 1, C_}}; }
    /// Tokens whose keys and values are held.
    index_t kept() const { return kept_; }
    /// Those, and room for n more: (B, kept + n, Z) and (B, kept + n, H), after a reserve of as many.
    view<T, 3> keys(index_t n) { return rows(keys_, n, Z_); }
    view<T, 3> values(index_t n) { return rows(values_, n, H_); }
    index_t chunk() const { return chunk_; }
    std::size_t bytes() const { return (averages_.size() + keys_.size() + values_.size()) * sizeof(T); }

    /// Room for so many tokens in all; beside the chunk held, those of one call.
    void reserve(index_t tokens) {
        if (tokens <= room_) return;
        const index_t room = std::max(tokens, 2 * room_);
        for (auto [memory, width] : {std::pair{&keys_, Z_}, {&values_, H_}}) {
            std::vector<T> grown(static_cast<std::size_t>(B_ * room * width));
            for (index_t b = 0; b < B_; ++b)
                std::copy_n(memory->begin() + b * room_ * width, kept_ * width, grown.begin() + b * room * width);
            memory->swap(grown);
        }
        room_ = room;
    }
    /// Takes in n tokens, whose keys and values are in place, and forgets the chunks that are complete.
    void advance(index_t n) {
        const index_t all = kept_ + n, first = chunk_ ? all / chunk_ * chunk_ : 0;
        kept_ = all - first;
        for (index_t b = 0; first > 0 && b < B_; ++b)
            for (auto [memory, width] : {std::pair{&keys_, Z_}, {&values_, H_}}) {
                const auto row = memory->begin() + b * room_ * width;
                std::copy_n(row + first * width, kept_ * width, row);
            }
    }

private:
    view<T, 3> rows(std::vector<T>& memory, index_t n, index_t width) {
        return {memory.data(), {B_, kept_ + n, width}, {room_ * width, width, 1}};
    }
    index_t B_, C_, S_, Z_, H_, chunk_, room_ = 0, kept_ = 0;
    std::vector<T> averages_, keys_, values_;
};

namespace detail {

template <class X, class R, class T, class Y>
void check_mega(const char* op, const view<X, 3>& x, const view<R, 3>& residual_in, const mega_parameters<T>& with,
                const view<Y, 3>& y) {
    const index_t C = y.shape[2], Z = with.kq.shape[0], H = with.wv.shape[1], width = 2 * C + Z + H;
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
    const auto weights = std::tuple(reads("omega", with.omega), reads("W", with.w), reads("b", with.b),
                                    reads("Wv", with.wv), reads("bv", with.bv), reads("Wh", with.wh),
                                    reads("bh", with.bh), reads("an affine map", with.kq),
                                    reads("an affine map", with.bq), reads("an affine map", with.kk),
                                    reads("an affine map", with.bk));
    check_apart_from_all(op, std::tuple_cat(std::tuple(reads("x", x)), weights), std::tuple(writes("y", y)));
    check_same_or_apart(op, writes("y", y), reads("the residual", residual_in));
}

/// The layer over the tokens after those that s has seen, or, if it is null, over whole sequences. S: the arithmetic.
template <class A, class S, class X, class R, class T, class Y, class Mask, class... P>
void run_mega(mega_state<S>* s, const view<X, 3>& x, const view<R, 3>& residual_in, const mega_parameters<T>& with,
              const view<Y, 3>& y, const Mask& mask, const P&... policies) {
    static constexpr const char* op = "mega";
    check_roles<P...>();
    check_mega(op, x, residual_in, with, y);
    const auto [B, N, C] = y.shape;
    const index_t Z = with.kq.shape[0], H = with.wv.shape[1], width = 2 * C + Z + H;
    const index_t kept = s ? s->kept() : 0;
    if (s) {
        require_argument(!with.back.alpha.data, op, "a state has no average from the other end");
        check_shape(op, reads("the state", s->keys(N)), {B, kept + N, Z}, "y, kq");
        check_shape(op, reads("the state", s->values(N)), {B, kept + N, H}, "y, Wv");
    }
    const auto run = [&, B = B, N = N, C = C](carver& from, const auto& context) {
        const auto take = [&](index_t columns) { return dense(from.take<S>(B * N * columns), {B, N, columns}); };
        const auto m = take(C), base = take(width), a = take(H), q = take(Z);
        if (s && !from.counts()) s->reserve(kept + N);
        const auto keys = s ? s->keys(N) : take(Z), values = s ? s->values(N) : take(H);
        const auto k = slice(keys, 1, {kept, kept + N}), v = slice(values, 1, {kept, kept + N});
        const auto part = [&](index_t first, index_t size) { return slice(base, 2, {first, first + size}); };
        const auto u = part(0, C), z = part(C, Z), r = part(C + Z, H), h = part(C + Z + H, C);
        const auto map = [&](const auto& to, const auto& f, const auto&... rows) {
            map_rows<A, S>(context, to, f, rows...);
        };
        const auto of = [&](const auto& constant) { return as_rows(constant, y.shape); };

        const auto packs = pick<roles::packed>(not_packed{}, policies...);
        ema<A>(x, with.ahead, m, residual{with.omega}, carry{s ? s->averages() : view<S, 3>{}}, packs, context);
        if (with.back.alpha.data) ema<A>(x, with.back, m, reversed{}, adding{}, packs, context);
        map(m, silu_of, m);
        multiply_rows<A>(m, with.w, base, context);
        add_bias<A>(context, base, with.b);
        multiply_rows<A>(x, with.wv, v, context);
        map(v, silu_of_sum, v, of(with.bv));
        map(z, silu_of, z);
        map(q, times_plus, z, of(with.kq), of(with.bq));
        map(k, times_plus, z, of(with.kk), of(with.bk));

        const auto weight = pick<roles::weight>(softmax{}, policies...);
        const auto score = score_of(pick<roles::score>(identity{}, policies...));
        if constexpr (std::remove_const_t<decltype(weight)>::normalised) {
            attention<A>(one_head(q), one_head(keys), one_head(values), one_head(a), mask, weight, score, context);
        } else {
            const auto shares = dense(from.take<S>(B * N), {B, 1, N});
            if (!from.counts()) count_rows(mask, kept + N, kept, shares);
            for (index_t i = 0; !from.counts() && i < B * N; ++i)
                shares.data[i] = shares.data[i] > 0 ? 1 / shares.data[i] : S(0);
            attention<A>(one_head(q), one_head(keys), one_head(values), one_head(a), mask, weight,
                         scale{1} >> rows_scale{shares} >> score, context);
        }
        map(a, silu_gated, a, r);
        multiply_rows<A>(a, with.wh, m, context);
        add_bias<A>(context, m, with.bh);
        const auto mix = [](const auto& open, const auto& left, const auto& right, const auto& old) {
            return fma(sigmoid(open), silu(left + right) - old, old);
        };
        map(y, mix, u, h, m, residual_in);
        if (s && !from.counts()) s->advance(N);
    };
    in_shared_scratch(op, run, pick<roles::context>(calling_thread{}, policies...));
}

}  // namespace detail

/// x, residual, y: (B, N, C), x after the norm. Policies: a mask, a weight, a score (a bias of distances),
/// packed{offsets}, whose sequences have masks of their own, on{pool, arena}. y may be the residual itself. Throws
/// shape_error or argument_error before y is touched.
template <class A = default_arch, class X, class R, class T, class Y, class... P>
void mega(const view<X, 3>& x, const view<R, 3>& residual_in, const mega_parameters<T>& with, const view<Y, 3>& y,
          const P&... policies) {
    using namespace detail;
    static_assert((has_one_of<P, roles::mask, roles::weight, roles::score, roles::packed, roles::context> && ...),
                  "heed: an argument is not a policy of mega");
    using S = accumulator<std::remove_const_t<X>, T, Y>;
    mega_state<S>* const none = nullptr;
    const auto mask = pick<roles::mask>(everything{}, policies...);
    const auto packs = pick<roles::packed>(not_packed{}, policies...);
    if constexpr (requires { packs.offsets; })
        run_mega<A>(none, x, residual_in, with, y, document{packs.offsets, mask}, policies...);
    else
        run_mega<A>(none, x, residual_in, with, y, mask, policies...);
}
/// The same, causal, for the tokens after those that s has seen, any number; with one, a step of decoding. Chunks are
/// those of s. A score may depend on distances alone.
template <class A = default_arch, class S, class X, class R, class T, class Y, class... P>
void mega(mega_state<S>& s, const view<X, 3>& x, const view<R, 3>& residual_in, const mega_parameters<T>& with,
          const view<Y, 3>& y, const P&... policies) {
    using namespace detail;
    static_assert((has_one_of<P, roles::weight, roles::score, roles::context> && ...),
                  "heed: an argument is not a policy of mega with a state");
    static_assert(std::is_same_v<S, accumulator<std::remove_const_t<X>, T, Y>>,
                  "heed: a state is of the type that sums are of");
    constexpr index_t whole = std::numeric_limits<index_t>::max() / 4;
    run_mega<A>(&s, x, residual_in, with, y, causal{} & chunk{s.chunk() ? s.chunk() : whole}, policies...);
}

}  // namespace heed::inline HEED_ABI
