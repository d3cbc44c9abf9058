// merge(into, parts...): joins attention over disjoint sets of keys, from each part's output and log-sum-exp.
//
//   lse = log sum_p exp(lse_p)      o = sum_p exp(lse_p - lse) o_p
// Associative and commutative to rounding; a part that saw no key (lse -inf) is the identity and its o is not read.
// Split keys, cached prefixes and ring steps are merges; the engine's own partials (m, l, o) are the same monoid.
#pragma once

#include <cmath>
#include <limits>

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../simd/convert.hpp"

namespace heed::inline HEED_ABI {

/// What attention over some keys leaves: o (B, H, N, E) and lse (B, H, N), natural log.
template <class O, class L>
struct partial {
    view<O, 4> o;
    view<L, 3> lse;
    partial(view<O, 4> output, view<L, 3> log_sums) : o(output), lse(log_sums) {}
};

namespace detail {

inline constexpr const char* merge_name = "merge";

template <class O, class L>
void check_partial(const partial<O, L>& p, const extents<4>& shape, const char* name) {
    for (std::size_t a = 0; a < 4; ++a)
        require_shape(p.o.shape[a] == shape[a], merge_name, name, " has extent ", p.o.shape[a], " on axis ", a,
                      ", the result has ", shape[a]);
    for (std::size_t a = 0; a < 3; ++a)
        require_shape(p.lse.shape[a] == shape[a], merge_name, "lse of ", name, " has extent ", p.lse.shape[a],
                      " on axis ", a, ", the result has ", shape[a]);
}

/// The result must not repeat an element, and may share memory with a part only element by element.
template <class T, std::size_t Rank>
void check_written(const view<T, Rank>& to) {
    for (std::size_t a = 0; a < Rank; ++a)
        require_shape(to.strides[a] != 0 || to.shape[a] <= 1, merge_name, "the result has stride 0 on axis ", a,
                      " of extent ", to.shape[a]);
}
template <class T, class U, std::size_t R, std::size_t S>
void check_apart(const view<T, R>& to, const view<U, S>& from) {
    bool same = false;
    if constexpr (R == S && std::is_same_v<T, std::remove_const_t<U>>)
        same = to.data == from.data && to.strides == from.strides;
    require_shape(same || !overlap(to, from), merge_name, "the result overlaps a part in memory");
}

/// Some channels of a row, summed by share.
template <class T>
struct shares_of_rows {
    static constexpr index_t channels = 128;  // whole packs
    alignas(64) T sums[channels] = {}, row[channels] = {};

    void clear() { std::fill_n(sums, channels, T(0)); }
    template <class O>
    void add(T share, const O* from, index_t stride, index_t count) {
        using P = pack<T>;
        widen_row<default_arch>(from, stride, count, row);
        for (index_t i = 0; i < count; i += P::size)
            store_aligned(sums + i, fma(P(share), load_aligned<P>(row + i), load_aligned<P>(sums + i)));
    }
};

/// T: the arithmetic.
template <class T, class O, class L, class... Part>
void merge_rows(const partial<O, L>& into, const Part&... parts) {
    const auto [B, H, N, E] = into.o.shape;
    constexpr double none = -std::numeric_limits<double>::infinity();
    constexpr int count = sizeof...(Part);
    constexpr index_t piece = shares_of_rows<T>::channels;
    shares_of_rows<T> total;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n) {
                const double logs[count] = {static_cast<double>(parts.lse(b, h, n))...};
                double top = none, sum = 0;
                for (double x : logs)
                    if (x > top || x != x) top = x;  // a NaN stays
                for (double x : logs) sum += x == none ? 0.0 : std::exp(x - top);
                T share[count];
                for (int p = 0; p < count; ++p)
                    share[p] = logs[p] == none ? T(0) : static_cast<T>(std::exp(logs[p] - top) / sum);
                for (index_t e = 0; e < E; e += piece) {
                    const index_t width = std::min(piece, E - e);
                    total.clear();
                    int p = 0;
                    const auto add = [&](const auto& part) {
                        if (logs[p] != none) total.add(share[p], &part.o(b, h, n, e), part.o.strides[3], width);
                        ++p;
                    };
                    (add(parts), ...);
                    narrow_row<default_arch>(total.sums, width, &into.o(b, h, n, e), into.o.strides[3]);
                }
                into.lse(b, h, n) = static_cast<L>(top == none ? none : top + std::log(sum));
            }
}

}  // namespace detail

/// into = the merge of the parts. `into` may be one of the parts, exactly; it must not overlap them otherwise.
/// Throws shape_error before anything is written.
template <class O, class L, class... Part>
void merge(const partial<O, L>& into, const Part&... parts) {
    static_assert(sizeof...(Part) >= 1, "heed: merge of nothing");
    using T = accumulator<std::remove_const_t<O>, typename decltype(Part::o)::value_type...>;
    detail::check_partial(into, into.o.shape, "the result");
    (detail::check_partial(parts, into.o.shape, "a part"), ...);
    detail::check_written(into.o);
    detail::check_written(into.lse);
    require_shape(!overlap(into.o, into.lse), detail::merge_name, "output and lse of the result overlap in memory");
    const auto apart = [&](const auto& part) {
        detail::check_apart(into.o, part.o);
        detail::check_apart(into.lse, part.lse);
        detail::check_apart(into.o, part.lse);
        detail::check_apart(into.lse, part.o);
    };
    (apart(parts), ...);
    detail::merge_rows<T>(into, parts...);
}

}  // namespace heed::inline HEED_ABI
