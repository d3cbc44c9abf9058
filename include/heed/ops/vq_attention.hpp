// Attention to quantised keys, LongVQ [46]: with keys from a codebook of S rows, tokens of one code have one weight, so
// all of them are one key. Exactly softmax attention over the quantised keys, in O(N (S + 2 L) D).
//
//   code_j = argmin_s |k_j - C_s|^2;  n_s tokens of code s with values that sum to U_s
//   all tokens: keys C_s, values U_s / n_s, bias log n_s.  Causal, blocks of L: block b attends token by token to
//   blocks b - 1 and b, and to the (n_s, U_s) of all before; the parts merge by their log-sum-exps.
// Memory beside: quantised keys of two blocks, and a codebook of means.
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

/// The tokens of each code: how many, and the mean of their values.
template <class T>
class code_means {
public:
    code_means(index_t B, index_t H, index_t S, index_t E)
        : B_(B),
          H_(H),
          S_(S),
          E_(E),
          counts_(static_cast<std::size_t>(B * H * S)),
          means_(counts_.size() * static_cast<std::size_t>(E)),
          logs_(counts_.size()) {}

    /// Takes in tokens; a mean moves by its share of the difference.
    template <class V>
    void add(const view<const index_t, 3>& codes, const view<V>& v, range tokens) {
        for (index_t b = 0; b < B_; ++b)
            for (index_t h = 0; h < H_; ++h)
                for (index_t n = tokens.first; n < tokens.last; ++n) {
                    const index_t at = (b * H_ + h) * S_ + codes(b, h, n);
                    const auto count = static_cast<T>(++counts_[static_cast<std::size_t>(at)]);
                    logs_[static_cast<std::size_t>(at)] = std::log(count);
                    for (index_t e = 0; e < E_; ++e) {
                        T& mean = means_[static_cast<std::size_t>(at * E_ + e)];
                        mean += (static_cast<T>(v(b, h, n, e)) - mean) / count;
                    }
                }
    }
    view<const T> means() const { return heads(means_.data(), {B_, H_, S_, E_}); }
    /// log n of each code, 0 where there is none, which `present` hides.
    view<const T, 4> logs() const { return {logs_.data(), {B_, H_, 1, S_}, {H_ * S_, S_, 0, 1}}; }
    auto present() const {
        return [this](const where& w) { return counts_[static_cast<std::size_t>((w.b * H_ + w.h) * S_ + w.j)] > 0; };
    }

private:
    index_t B_, H_, S_, E_;
    std::vector<index_t> counts_;
    std::vector<T> means_, logs_;
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
/// Policies: scale, lse, on{pool}.
template <class A = default_arch, class Q, class C, class V, class O, class... P>
void vq_attention(const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes, const view<V>& v,
                  const view<O>& o, const P&... policies) {
    using namespace detail;
    check_vq("vq_attention", q, codebook, codes, v, o);
    using T = accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>;
    code_means<T> all(q.shape[0], q.shape[1], codebook.shape[1], v.shape[3]);
    all.add(codes, v, {0, v.shape[2]});
    attention<A>(q, keys_of(codebook, q.shape[0]), all.means(), o, all.present(), bias(all.logs()), policies...);
}

/// Causal, as many queries as tokens, in blocks of L >= 1. `near` is added to the logits of tokens of this block and
/// the one before (a bias of distances, whose positions are those inside the two blocks). Policies: scale, on{pool}.
template <class A = default_arch, class Q, class C, class V, class O, class Near = identity, class... P>
void causal_vq_attention(const view<Q>& q, const view<C, 3>& codebook, const view<const index_t, 3>& codes,
                         const view<V>& v, const view<O>& o, index_t L, const Near& near = {}, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "causal_vq_attention";
    check_vq(op, q, codebook, codes, v, o);
    require_argument(L >= 1, op, "blocks have ", L, " tokens, the least is 1");
    require_shape(q.shape[2] == v.shape[2], op, "q has ", q.shape[2], " rows, v has ", v.shape[2]);
    using T = accumulator<std::remove_const_t<Q>, std::remove_const_t<C>, std::remove_const_t<V>, O>;
    const auto [B, H, N, D] = q.shape;
    code_means<T> before(B, H, codebook.shape[1], v.shape[3]);
    std::vector<T> memory(static_cast<std::size_t>(B * H * 2 * L * D));
    for (index_t first = 0; first < N; first += L) {
        const range block{first, std::min(N, first + L)}, seen{std::max<index_t>(0, first - L), block.last};
        const auto khat = heads(memory.data(), {B, H, seen.size(), D});
        each_row(khat.shape, [&, D = D](index_t b, index_t h, index_t n) {
            for (index_t d = 0; d < D; ++d)
                khat(b, h, n, d) = static_cast<T>(codebook(h, codes(b, h, seen.first + n), d));
        });
        if (seen.first > 0) before.add(codes, v, {seen.first - L, seen.first});
        const extents<4> rows{B, H, block.size(), v.shape[3]};
        owned_partial<T> close(rows), far(rows);
        const auto queries = slice(q, 2, block);
        attention<A>(queries, khat, slice(v, 2, seen), close.o(), causal{}, score_of(near), lse{close.lse()},
                     policies...);
        if (seen.first > 0)
            attention<A>(queries, keys_of(codebook, B), before.means(), far.o(), before.present(), bias(before.logs()),
                         lse{far.lse()}, policies...);
        merge(close.all(), close.all(), far.all());
        const auto from = close.o();
        const auto to = slice(o, 2, block);
        each_row(rows, [&](index_t b, index_t h, index_t n) {
            for (index_t e = 0; e < to.shape[3]; ++e) to(b, h, n, e) = static_cast<O>(from(b, h, n, e));
        });
    }
}

}  // namespace heed::inline HEED_ABI
