// Attention over keys cut into segments, and the weight each segment receives.
//
//   o = attention(q, k, v)      mass(b, h, n, s) = sum of p_j over the keys j of segment s = exp(lse_s - lse)
// Segments are attended to one by one and merged, so the masses of a row cost one number a segment: no second walk over
// the keys, no weights in memory. They sum to 1, and are 0 for a row that sees nothing. [78] [112], phase 2 of [59].
// In a decoding step, or of a few rows of a prompt, the probe segment_mass (policy/) has them without cutting the call.
#pragma once

#include "partials.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

using cuts = std::span<const index_t>;

template <class Q, class Source, class O, class... P>
void check_segments(const char* op, const attention_operands<Q, Source, O>& x, cuts at, const P&... policies) {
    check_parts(op, x, policies...);
    require_argument(at.size() >= 2, op, "there are ", at.size(), " cuts, the least is the first key and the end");
    check_ascending(op, "cut", at);
    require_shape(at.front() == 0 && at.back() >= x.last_end, op, "the cuts span [", at.front(), ", ", at.back(),
                  "), the keys [0, ", x.last_end, ")");
}

/// Attends to segment after segment, calls note(s, log-sum-exps of segment s) after each, and merges them.
template <class A, class Q, class Source, class O, class Note, class... P>
auto attend_segments(const attention_operands<Q, Source, O>& x, cuts at, const Note& note, const P&... policies) {
    auto whole = partial_of(x), part = partial_of(x);
    for (std::size_t s = 0; s + 1 < at.size(); ++s) {
        attend_part<A>(x.q, x.source, part, between{at[s], at[s + 1]}, std::tuple<>{}, policies...);
        note(static_cast<index_t>(s), part.lse());
        merge(whole.all(), whole.all(), part.all());
    }
    return whole;
}

}  // namespace detail

/// Attention with the mass of every segment, the keys at positions [cuts[s], cuts[s + 1]); cuts go from 0 to the end of
/// the keys or beyond. q (B, H, N, D), a source of G heads, o (B, H, N, E), mass (B, H, N, S). Policies: mask, score,
/// scale, offset, lse, on. Memory beside: two outputs in the accumulator's type, a double for each mass. Throws
/// shape_error or argument_error before o is touched.
template <class A = default_arch, class Q, key_value_source Source, class O, class Mass, class... P>
void segment_attention(const Q& q, const Source& source, O&& o, std::span<const index_t> cuts, Mass&& mass,
                       const P&... policies) {
    static constexpr const char* op = "segment_attention";
    const auto x = detail::operands_of(as_view(q), source, as_view(o));
    const auto masses = as_view(mass);
    const index_t B = x.B(), H = x.H(), N = x.N(), S = static_cast<index_t>(cuts.size()) - 1;
    detail::check_segments(op, x, cuts, policies...);
    require_shape(masses.shape == extents<4>{B, H, N, S}, op, "the masses have shape (", masses.shape[0], ", ",
                  masses.shape[1], ", ", masses.shape[2], ", ", masses.shape[3], "), expected (", B, ", ", H, ", ", N,
                  ", ", S, ")");
    require_shape(!overlap(masses, x.o), op, "the masses overlap o in memory");

    std::vector<double> memory(static_cast<std::size_t>(B * H * N * S));
    const auto logs = dense(memory.data(), {B, H, N, S});
    const auto note = [&](index_t s, const auto& sums) {
        detail::each_row(x.o.shape, [&](index_t b, index_t h, index_t n) { logs(b, h, n, s) = sums(b, h, n); });
    };
    auto whole = detail::attend_segments<A>(x, cuts, note, policies...);
    const auto all = whole.lse();
    detail::each_row(x.o.shape, [&](index_t b, index_t h, index_t n) {
        for (index_t s = 0; s < S; ++s) {
            const double log = logs(b, h, n, s);
            const bool empty = log == -std::numeric_limits<double>::infinity();
            using M = std::remove_reference_t<decltype(masses(b, h, n, s))>;
            masses(b, h, n, s) = static_cast<M>(empty ? 0.0 : std::exp(log - all(b, h, n)));
        }
    });
    detail::deliver(whole, x.o, detail::pick_all<roles::probe>(policies...));
}

/// The same over k (B, G, M, D) and v (B, G, M, E).
template <class A = default_arch, class Q, class K, class V, class O, class Mass, class... P>
    requires(!key_value_source<K>)
void segment_attention(const Q& q, const K& k, const V& v, O&& o, std::span<const index_t> cuts, Mass&& mass,
                       const P&... policies) {
    segment_attention<A>(q, detail::source_of(as_view(k), as_view(v)), o, cuts, mass, policies...);
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
