// Attention to quantised keys, LongVQ [46]: with keys from a codebook of S rows, tokens of one code have one weight, so
// all of them are one key. Exactly softmax attention over the quantised keys, in O(N (S + 2 L) D).
//
//   code_j = argmin_s |k_j - C_s|^2;  n_s tokens of code s with values that sum to U_s
//   all tokens: keys C_s, values U_s / n_s, bias log n_s.  Causal, blocks of L: block b attends token by token to
//   blocks b - 1 and b, and to the (n_s, U_s) of all before; the parts merge by their log-sum-exps.
// A causal sequence leaves behind the tokens of two blocks and a codebook of means, whatever its length.
#pragma once

#include "../policy/score_bias.hpp"
#include "partials.hpp"

namespace heed::inline HEED_ABI {

/// codes (B, H, N) of keys k (B, H, N, D) in a codebook (H, S, D), S >= 1; the lowest of equally near ones.
template <class K, class C>
void vq_codes(const view<K>& k, const view<C, 3>& codebook, const view<index_t, 3>& codes) {
    static constexpr const char* op = "vq_codes";
    const auto [B, H, N, D] = k.shape;
    require_shape(codebook.shape[0] == H && codebook.shape[2] == D, op, "the codebook is of ", codebook.shape[0],
                  " heads, width ", codebook.shape[2], ", k of ", H, ", ", D);
    require_shape(codes.shape == extents<3>{B, H, N}, op, "codes are (", codes.shape[0], ", ", codes.shape[1], ", ",
                  codes.shape[2], "), k has (", B, ", ", H, ", ", N, ")");
    require_shape(codebook.shape[1] >= 1 || B * H * N == 0, op, "the codebook is empty");
    detail::each_row(k.shape, [&](index_t b, index_t h, index_t n) {
        double least = std::numeric_limits<double>::infinity();
        index_t best = 0;
        for (index_t s = 0; s < codebook.shape[1]; ++s) {
            double far = 0;
            for (index_t d = 0; d < codebook.shape[2]; ++d) {
                const double off = static_cast<double>(k(b, h, n, d)) - static_cast<double>(codebook(h, s, d));
                far += off * off;
            }
            if (far < least) least = far, best = s;
        }
        codes(b, h, n) = best;
    });
}

namespace detail {

/// The tokens of each code: how many, and the mean of their values. In memory of a carver.
template <class T>
class code_means {
public:
    code_means(carver& from, index_t B, index_t H, index_t S, index_t E)
        : B_(B),
          H_(H),
          S_(S),
          E_(E),
          counts_(from.take<index_t>(B * H * S)),
          means_(from.take<T>(B * H * S * E)),
          logs_(from.take<T>(B * H * S)) {}
    void clear() {
        std::fill_n(counts_, B_ * H_ * S_, index_t(0));
        std::fill_n(means_, B_ * H_ * S_ * E_, T(0));
        std::fill_n(logs_, B_ * H_ * S_, T(0));
    }

    /// Takes in tokens; a mean moves by its share of the difference.
    template <class C, class V>
    void add(const view<C, 3>& codes, const view<V>& v, range tokens) {
        for (index_t b = 0; b < B_; ++b)
            for (index_t h = 0; h < H_; ++h)
                for (index_t n = tokens.first; n < tokens.last; ++n) {
                    const index_t at = (b * H_ + h) * S_ + codes(b, h, n);
                    const auto count = static_cast<T>(++counts_[at]);
                    logs_[at] = std::log(count);
                    for (index_t e = 0; e < E_; ++e) {
                        T& mean = means_[at * E_ + e];
                        mean += (static_cast<T>(v(b, h, n, e)) - mean) / count;
                    }
                }
    }
    view<const T> means() const { return heads(means_, {B_, H_, S_, E_}); }
    /// log n of each code, 0 where there is none, which `present` hides.
    view<const T, 4> logs() const { return {logs_, {B_, H_, 1, S_}, {H_ * S_, S_, 0, 1}}; }
    auto present() const {
        return [this](const where& w) { return counts_[(w.b * H_ + w.h) * S_ + w.j] > 0; };
    }

private:
    index_t B_, H_, S_, E_;
    index_t* counts_;
    T *means_, *logs_;
};

/// What a causal sequence leaves behind, in memory of a carver: the tokens of two blocks of L, and the means of those
/// before.
template <class T>
struct vq_memory {
    code_means<T> before;
    view<index_t, 3> codes;  // (B, H, 2 L)
    view<T> keys, values;    // (B, H, 2 L, D), (B, H, 2 L, E)

    vq_memory(carver& from, index_t B, index_t H, index_t S, index_t D, index_t E, index_t L)
        : before(from, B, H, S, E),
          codes(dense(from.take<index_t>(B * H * 2 * L), {B, H, 2 * L})),
          keys(heads(from.take<T>(B * H * 2 * L * D), {B, H, 2 * L, D})),
          values(heads(from.take<T>(B * H * 2 * L * E), {B, H, 2 * L, E})) {}

    /// Rows `to` become some tokens of an operand.
    template <class C, class V>
    void write(range to, const view<C, 3>& codebook, const view<const index_t, 3>& code, const view<V>& v) {
        each_row({codes.shape[0], codes.shape[1], to.size(), 0}, [&](index_t b, index_t h, index_t n) {
            const index_t s = codes(b, h, to.first + n) = code(b, h, n);
            for (index_t d = 0; d < keys.shape[3]; ++d) keys(b, h, to.first + n, d) = static_cast<T>(codebook(h, s, d));
            for (index_t e = 0; e < values.shape[3]; ++e) values(b, h, to.first + n, e) = static_cast<T>(v(b, h, n, e));
        });
    }
    /// The first block joins the means, the second takes its place.
    void fold() {
        const index_t L = codes.shape[2] / 2;
        before.add(codes, values, {0, L});
        for (index_t b = 0; b < codes.shape[0]; ++b)
            for (index_t h = 0; h < codes.shape[1]; ++h) {
                std::copy_n(&codes(b, h, L), L, &codes(b, h, 0));
                for (const auto& rows : {keys, values})
                    std::copy_n(rows.data + b * rows.strides[0] + h * rows.strides[1] + L * rows.strides[2],
                                L * rows.shape[3], rows.data + b * rows.strides[0] + h * rows.strides[1]);
            }
    }
};
/// How far a sequence has come: tokens of the two blocks that are there, and whether there are any before.
struct vq_place {
    index_t held = 0;
    bool early = false;
};

template <class Q, class C, class V, class O>
void check_vq(const char* op, const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes,
              const view<V>& v, const view<O>& o) {
    const auto [B, H, N, E] = o.shape;
    const index_t D = q.shape[3], S = codebook.shape[1], M = v.shape[2];
    require_shape(q.shape == extents<4>{B, H, N, D}, op, "q has ", q.shape[1], " heads of ", q.shape[2],
                  " rows, o has ", H, " of ", N);
    require_shape(codebook.shape == extents<3>{H, S, D}, op, "the codebook is (", codebook.shape[0], ", ",
                  codebook.shape[1], ", ", codebook.shape[2], "), q asks for (", H, ", ", S, ", ", D, ")");
    require_shape(v.shape == extents<4>{B, H, M, E}, op, "v has ", v.shape[1], " heads of width ", v.shape[3],
                  ", o has ", H, " of ", E);
    require_shape(codes.shape == extents<3>{B, H, M}, op, "there are codes of ", codes.shape[2], " tokens, v has ", M);
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < M; ++n)
                require_argument(codes(b, h, n) >= 0 && codes(b, h, n) < S, op, "code ", codes(b, h, n), " of ", S);
    require_shape(!overlap(o, q) && !overlap(o, v) && !overlap(o, codebook) && !overlap(o, codes), op,
                  "o overlaps an input");
}

/// The codebook as keys of every sequence.
template <class C>
view<const C> keys_of(const view<C, 3>& codebook, index_t B) {
    return {codebook.data,
            {B, codebook.shape[0], codebook.shape[1], codebook.shape[2]},
            {0, codebook.strides[0], codebook.strides[1], codebook.strides[2]}};
}

}  // namespace detail

/// Every query sees every token: q (B, H, N, D), codebook (H, S, D), codes (B, H, M), v (B, H, M, E), o (B, H, N, E).
/// Policies: scale, lse, on{pool, arena}.
template <class A = default_arch, class Q, class C, class V, class O, class... P>
void vq_attention(const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes, const view<V>& v,
                  const view<O>& o, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "vq_attention";
    check_vq(op, q, codebook, codes, v, o);
    using T = accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>;
    const auto run = [&](carver& from, const auto&... with) {
        code_means<T> all(from, q.shape[0], q.shape[1], codebook.shape[1], v.shape[3]);
        if (!from.counts()) all.clear(), all.add(codes, v, {0, v.shape[2]});
        attention<A>(q, keys_of(codebook, q.shape[0]), all.means(), o, all.present(), bias(all.logs()), with...);
    };
    in_shared_scratch(op, run, policies...);
}

/// What B sequences of H heads leave behind of causal attention in blocks of L tokens. Copies are snapshots.
template <std::floating_point T>
class vq_state {
public:
    vq_state(index_t B, index_t H, index_t S, index_t D, index_t E, index_t L) : shape_{B, H, S, D, E, L} {
        require_argument(L >= 1, "vq_state", "blocks have ", L, " tokens, the least is 1");
        carver count;
        memory(count);
        bytes_.resize(count.used());
        tokens().before.clear();
    }
    detail::vq_memory<T> tokens() {
        carver from(bytes_.data());
        return memory(from);
    }
    detail::vq_place& place() { return place_; }
    std::size_t bytes() const { return bytes_.size(); }
    void check(const char* op, const std::array<index_t, 5>& asked) const {
        static constexpr const char* names[] = {"sequences", "heads", "codes", "channels of keys",
                                                "channels of values"};
        for (std::size_t i = 0; i < asked.size(); ++i)
            require_shape(shape_[i] == asked[i], op, "the state is of ", shape_[i], " ", names[i], ", the call of ",
                          asked[i]);
    }

private:
    detail::vq_memory<T> memory(carver& from) const {
        const auto [B, H, S, D, E, L] = shape_;
        return {from, B, H, S, D, E, L};
    }
    std::array<index_t, 6> shape_;
    std::vector<std::byte> bytes_;
    detail::vq_place place_;
};

namespace detail {

/// The tokens of q, block by block, after those that `memory` holds and `place` counts.
template <class A, class T, class Q, class C, class V, class O, class Near, class... With>
void run_causal_vq(carver& from, vq_memory<T>& memory, vq_place& place, const view<Q>& q, const view<C, 3>& codebook,
                   const view<const index_t, 3>& codes, const view<V>& v, const view<O>& o, const Near& near,
                   const With&... with) {
    const auto [B, H, N, E] = o.shape;
    const index_t L = memory.codes.shape[2] / 2, most = std::min(L, N);
    T* const outputs[] = {from.take<T>(B * H * most * E), from.take<T>(B * H * most * E)};
    double* const sums[] = {from.take<double>(B * H * most), from.take<double>(B * H * most)};
    vq_place at = place;
    index_t met = 0;
    for (index_t first = 0; first < N; ++met) {
        const range piece{first, std::min(N, first + L - at.held % L)};
        const range rows{at.held, at.held + piece.size()};
        first = piece.last;
        // The first three blocks and the last need what any other does.
        const bool known = from.counts() && met > 2 && piece.last < N;
        if (!from.counts()) memory.write(rows, codebook, slice(codes, 2, piece), slice(v, 2, piece));
        const auto part = [&, B = B, H = H, E = E](std::size_t i) {
            return partial(heads(outputs[i], {B, H, piece.size(), E}), dense(sums[i], {B, H, piece.size()}));
        };
        const auto close = part(0), far = part(1);
        const auto queries = slice(q, 2, piece);
        const range seen{0, rows.last};
        if (!known)
            attention<A>(queries, slice(memory.keys, 2, seen), slice(memory.values, 2, seen), close.o, causal{},
                         score_of(near), lse{close.lse}, with...);
        if (!known && at.early)
            attention<A>(queries, keys_of(codebook, B), memory.before.means(), far.o, memory.before.present(),
                         bias(memory.before.logs()), lse{far.lse}, with...);
        if (!from.counts()) {
            const partial to(slice(o, 2, piece), close.lse);
            if (at.early)
                merge(to, close, far);
            else
                merge(to, close);
        }
        at.held = rows.last;
        if (at.held == 2 * L) {
            if (!from.counts()) memory.fold();
            at = {L, true};
        }
    }
    if (!from.counts()) place = at;
}

template <class Q, class V>
void check_causal_vq(const char* op, const view<Q>& q, const view<V>& v) {
    require_shape(q.shape[2] == v.shape[2], op, "q has ", q.shape[2], " rows, v has ", v.shape[2]);
}

}  // namespace detail

/// Causal, as many queries as tokens, in blocks of L >= 1. `near` is added to the logits of tokens of this block and
/// the one before (a bias of distances, whose positions are those inside the two blocks). Policies: scale, on{pool,
/// arena}. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, class C, class V, class O, class Near = identity, class... P>
void causal_vq_attention(const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes,
                         const view<V>& v, const view<O>& o, index_t L, const Near& near = {}, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "causal_vq_attention";
    check_vq(op, q, codebook, codes, v, o);
    require_argument(L >= 1, op, "blocks have ", L, " tokens, the least is 1");
    check_causal_vq(op, q, v);
    using T = accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>;
    const auto run = [&](carver& from, const auto&... with) {
        vq_memory<T> memory(from, o.shape[0], o.shape[1], codebook.shape[1], q.shape[3], o.shape[3],
                            std::max<index_t>(1, std::min(L, o.shape[2])));
        vq_place start;
        if (!from.counts()) memory.before.clear();
        run_causal_vq<A>(from, memory, start, q, codebook, codes, v, o, near, with...);
    };
    in_shared_scratch(op, run, policies...);
}
/// The same for the tokens after those that s has seen, any number, in the blocks of s; with one, a step of decoding.
template <class A = default_arch, class T, class Q, class C, class V, class O, class Near = identity, class... P>
void causal_vq_attention(vq_state<T>& s, const view<Q>& q, const view<C, 3>& codebook,
                         const view<const index_t, 3>& codes, const view<V>& v, const view<O>& o, const Near& near = {},
                         const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "causal_vq_attention";
    static_assert(
        std::is_same_v<T, accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>>,
        "heed: a state is of the type that sums are of");
    check_vq(op, q, codebook, codes, v, o);
    check_causal_vq(op, q, v);
    s.check(op, {o.shape[0], o.shape[1], codebook.shape[1], q.shape[3], o.shape[3]});
    auto memory = s.tokens();
    const auto run = [&](carver& from, const auto&... with) {
        run_causal_vq<A>(from, memory, s.place(), q, codebook, codes, v, o, near, with...);
    };
    in_shared_scratch(op, run, policies...);
}

}  // namespace heed::inline HEED_ABI
