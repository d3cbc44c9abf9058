// Attention over keys cut into segments, and the weight each segment receives.
//
//   o = attention(q, k, v)      mass(b, h, n, s) = sum of p_j over the keys j of segment s = exp(lse_s - lse)
// Segments are attended to one by one and merged, so the masses of a row cost one number a segment: no second walk over
// the keys, no weights in memory. They sum to 1, and are 0 for a row that sees nothing. [78] [112], phase 2 of [59].
#pragma once

#include "partials.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

using cuts = std::span<const index_t>;

inline void check_cuts(const char* op, cuts at, index_t keys) {
    require_argument(at.size() >= 2, op, "there are ", at.size(), " cuts, the least is the first key and the end");
    for (std::size_t s = 1; s < at.size(); ++s)
        require_argument(at[s - 1] <= at[s], op, "cut ", at[s], " stands after ", at[s - 1],
                         ", they must not decrease");
    require_shape(at.front() == 0 && at.back() == keys, op, "the cuts span [", at.front(), ", ", at.back(), "), k has ",
                  keys, " keys");
}

template <class Q, class Keys, class O, class... P>
void check_segments(const char* op, const view<Q>& q, const Keys& keys, const view<O>& o, cuts at,
                    const P&... policies) {
    using taken = role_list<roles::mask, roles::score, roles::scale, roles::offset, roles::context, roles::probe>;
    static_assert(only_roles<taken, P...> && (probes_lse_only<P> && ...),
                  "heed: attention by segments takes a mask, a score, scale, offset, lse and on");
    keys.check(op, q, o);
    check_cuts(op, at, keys.count());
    check_probes(op, pick_all<roles::probe>(policies...), {q.shape[0], q.shape[1], q.shape[2], keys.count()});
}

/// Calls note(s, log-sum-exps of segment s) for every segment.
template <class A, class Q, class Keys, class O, class Note, class... P>
owned_partial<typename Keys::template accumulated<std::remove_const_t<Q>, O>> attend_segments(
    const view<Q>& q, const Keys& keys, const view<O>& o, cuts at, const Note& note, const P&... policies) {
    owned_partial<typename Keys::template accumulated<std::remove_const_t<Q>, O>> whole(o.shape), part(o.shape);
    for (std::size_t s = 0; s + 1 < at.size(); ++s) {
        attend_part<A>(q, keys, part, between{at[s], at[s + 1]}, std::tuple<>{}, policies...);
        note(static_cast<index_t>(s), part.lse());
        merge(whole.all(), whole.all(), part.all());
    }
    return whole;
}

template <class A, class Q, class Keys, class O, class M, class... P>
void segment_attention_of(const view<Q>& q, const Keys& keys, const view<O>& o, cuts at, const view<M>& mass,
                          const P&... policies) {
    static constexpr const char* op = "segment_attention";
    const auto [B, H, N, E] = o.shape;
    const auto S = static_cast<index_t>(at.size()) - 1;
    check_segments(op, q, keys, o, at, policies...);
    require_shape(mass.shape == extents<4>{B, H, N, S}, op, "the masses have shape (", mass.shape[0], ", ",
                  mass.shape[1], ", ", mass.shape[2], ", ", mass.shape[3], "), expected (", B, ", ", H, ", ", N, ", ",
                  S, ")");
    require_shape(!overlap(mass, o), op, "the masses overlap o in memory");

    std::vector<double> memory(static_cast<std::size_t>(B * H * N * S));
    const auto logs = dense(memory.data(), {B, H, N, S});
    auto whole = attend_segments<A>(
        q, keys, o, at,
        [&](index_t s, const auto& sums) {
            each_row(o.shape, [&](index_t b, index_t h, index_t n) { logs(b, h, n, s) = sums(b, h, n); });
        },
        policies...);
    const auto all = whole.lse();
    each_row(o.shape, [&](index_t b, index_t h, index_t n) {
        for (index_t s = 0; s < S; ++s) {
            const double log = logs(b, h, n, s);
            const bool empty = log == -std::numeric_limits<double>::infinity();
            mass(b, h, n, s) = static_cast<M>(empty ? 0.0 : std::exp(log - all(b, h, n)));
        }
    });
    deliver(whole, o, pick_all<roles::probe>(policies...));
}

}  // namespace detail

/// Attention with the mass of every segment of keys, [cuts[s], cuts[s + 1]); cuts go from 0 to M. q (B, H, N, D),
/// k (B, G, M, D), v (B, G, M, E), o (B, H, N, E), mass (B, H, N, S). Policies: mask, score, scale, offset, lse, on.
/// Memory beside: two outputs in the accumulator's type. Throws shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, class K, class V, class O, class Mass, class... P>
void segment_attention(const Q& q, const K& k, const V& v, O&& o, std::span<const index_t> cuts, Mass&& mass,
                       const P&... policies) {
    detail::segment_attention_of<A>(as_view(q), detail::key_views{as_view(k), as_view(v)}, as_view(o), cuts,
                                    as_view(mass), policies...);
}

/// Mean mass of each of S segments over all that is added: rows, heads, batches; layers and prompts, one call each.
class mean_mass {
public:
    explicit mean_mass(index_t segments) : sums_(static_cast<std::size_t>(segments)) {}

    /// mass (B, H, N, S), as it is, or divided by the number of keys in each segment.
    template <class T>
    void add(const view<T, 4>& mass, std::span<const index_t> lengths = {}) {
        const auto S = static_cast<index_t>(sums_.size());
        require_shape(mass.shape[3] == S, "mean_mass", "the masses are of ", mass.shape[3], " segments, expected ", S);
        require_shape(lengths.empty() || static_cast<index_t>(lengths.size()) == S, "mean_mass", "there are ",
                      lengths.size(), " lengths and ", S, " segments");
        for (index_t n : lengths) require_argument(n >= 1, "mean_mass", "a segment has ", n, " keys, the least is 1");
        detail::each_row(mass.shape, [&](index_t b, index_t h, index_t n) {
            for (index_t s = 0; s < S; ++s) {
                const auto x = static_cast<std::size_t>(s);
                sums_[x] +=
                    static_cast<double>(mass(b, h, n, s)) / static_cast<double>(lengths.empty() ? 1 : lengths[x]);
            }
            ++rows_;
        });
    }
    /// 0 everywhere, as long as nothing was added.
    std::vector<double> mean() const {
        auto out = sums_;
        for (double& x : out) x /= static_cast<double>(std::max<index_t>(rows_, 1));
        return out;
    }

private:
    std::vector<double> sums_;
    index_t rows_ = 0;
};

}  // namespace heed::inline HEED_ABI
