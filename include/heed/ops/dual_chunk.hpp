// Dual chunk attention: causal attention in which no rotary distance exceeds the length trained on [63].
//
//   key j stands at j mod s; query i, against a key of
//     its own chunk         at i mod s                 (intra: exact distance)
//     the chunk before      at min(i mod s + s, c)     (successive: exact up to w keys back)
//     any older chunk       at min(2 s - 1, c)         (inter)           c = s + w; chunks of s keys, w of them local
// Cost: causal attention in three disjoint parts; queries rotated three times, keys once. An et al., arXiv:2402.17463.
#pragma once

#include "rotated_parts.hpp"

namespace heed::inline HEED_ABI {

/// The rule of positions. The cap is that of the released code; the paper's text caps one lower: dual_chunk{s, w - 1}.
struct dual_chunk {
    index_t chunk, cap;
    constexpr dual_chunk(index_t size, index_t local) : chunk(size), cap(size + local) {}

    /// The authors' choice for a model trained on `length` tokens.
    static constexpr dual_chunk trained(index_t length) { return {length * 3 / 4 - length / 16, length / 16}; }
    constexpr index_t intra(index_t i) const { return i % chunk; }
    constexpr index_t successive(index_t i) const { return std::min(i % chunk + chunk, cap); }
    constexpr index_t inter() const { return std::min(2 * chunk - 1, cap); }
    /// Keys `first`, first + 1, ...: rotary(k, k, rule.keys(past), theta{...}) before they are cached.
    auto keys(index_t first = 0) const {
        return positions_by{[s = chunk, first](index_t n) { return (first + n) % s; }};
    }
    void check(const char* op) const {
        require_argument(chunk >= 1, op, "chunks have ", chunk, " keys, the least is 1");
        require_argument(cap >= chunk, op, cap - chunk, " keys are local, the least is 0");
    }
};

/// q (B, H, N, D) unrotated, a source of G heads whose keys were rotated by rule.keys(), o (B, H, N, E); prefill, or
/// decode with fewer queries than keys. Policies: those of rotary but positions, for the queries; scale{}; offset{},
/// the position of the first query (never negative); lse{}; on{}. Memory beside: the queries, and two outputs in the
/// accumulator's type. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, class O, class... P>
void dual_chunk_attention(const Q& q, const Source& source, O&& o, const dual_chunk& rule, const P&... policies) {
    static constexpr const char* op = "dual_chunk_attention";
    rule.check(op);
    auto parts = detail::parts_of<A>(op, as_view(q), source, as_view(o), policies...);
    const index_t s = rule.chunk;
    parts.add(source, causal{} & chunk{s}, [&](index_t i) { return rule.intra(i); });
    if (parts.end() > s) parts.add(source, earlier{chunk{s}, s}, [&](index_t i) { return rule.successive(i); });
    if (parts.end() > 2 * s) parts.add(source, earlier{block_causal{s}, 2 * s}, [&](index_t) { return rule.inter(); });
    parts.deliver();
}

/// The same over k (B, G, M, D) rotated by rule.keys() and v (B, G, M, E).
template <class A = default_arch, class Q, class K, class V, class O, class... P>
    requires(!key_value_source<K>)
void dual_chunk_attention(const Q& q, const K& k, const V& v, O&& o, const dual_chunk& rule, const P&... policies) {
    dual_chunk_attention<A>(q, detail::source_of(as_view(k), as_view(v)), o, rule, policies...);
}

}  // namespace heed::inline HEED_ABI
