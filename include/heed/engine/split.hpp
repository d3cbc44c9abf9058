// Attention of a few queries over many keys: the keys are split over tasks, each K and V row is read once for all query
// rows of its group, and lanes run along the width.
//
//   part p of head g:  (m, l, o)_p over its keys, tile by tile: S = q K^T, softmax, o += P V       tile/streamed.hpp
//   row:               parts merge in order, then close: o / l, sink, log-sum-exp
// Bound by reading K and V once. How keys are cut depends on how many there are and on nothing else, so the bits do not
// depend on threads, on other sequences, or on which tasks ran at once.
#pragma once

#include <array>

#include "../core/context.hpp"
#include "../policy/score.hpp"
#include "../tile/softmax.hpp"
#include "../tile/streamed.hpp"
#include "attention_operands.hpp"
#include "closing.hpp"
#include "group_rows.hpp"
#include "placed.hpp"

namespace heed::inline HEED_ABI::detail {

/// Parts a head's keys are cut into: at least 512 keys each, at most 32 of them.
struct split_cut {
    static constexpr index_t fewest_keys = 512, most_parts = 32;
    index_t span, parts;

    explicit split_cut(index_t keys)
        : span(std::max(fewest_keys, round_up(ceil_div(keys, most_parts), streamed_tile))), parts(ceil_div(keys, span)) {}
    static index_t most(index_t keys) { return std::min(most_parts, ceil_div(keys, fewest_keys)); }
    range keys_of(index_t part, index_t keys) const { return {part * span, std::min((part + 1) * span, keys)}; }
};

/// What some keys leave for R rows: reference m (base 2) and sum l of the weights, unnormalised o (R, width).
template <class T>
struct row_partials {
    T* m;
    T* l;
    T* seen;  // 1 where the row met a visible key
    T* o;

    row_partials(carver& from, index_t rows, index_t width)
        : m(from.take<T>(rows)), l(from.take<T>(rows)), seen(from.take<T>(rows)), o(from.take<T>(rows * width)) {}

    /// *this = *this + next.
    void merge(const row_partials& next, index_t rows, index_t width, bool normalised) {
        for (index_t r = 0; r < rows; ++r) {
            const T top = next.m[r] > m[r] ? next.m[r] : m[r];
            const T mine = normalised ? std::exp2(m[r] - top) : T(1), its = normalised ? std::exp2(next.m[r] - top) : T(1);
            m[r] = top;
            l[r] = l[r] * mine + next.l[r] * its;
            seen[r] = std::max(seen[r], next.seen[r]);
            for (index_t e = 0; e < width; ++e) o[r * width + e] = o[r * width + e] * mine + next.o[r * width + e] * its;
        }
    }
};

/// The passes of one call over the keys of one head's group, for T on A.
template <class A, class T, class Source, class Mask, class Score, class Weight>
class split_pass {
public:
    using P = pack<T, A>;
    using K = typename Source::key_rows;
    using V = typename Source::value_rows;
    static constexpr index_t L = lanes<T, A>, tile = streamed_tile;
    static constexpr bool maps_logits = !std::is_same_v<Score, identity> || additive_mask<Mask>;

    struct shape {
        index_t N, group, D, E;
        index_t rows() const { return N * group; }
        index_t q_width() const { return round_up(D, L); }
        index_t o_width() const { return round_up(E, L); }
    };

    /// Scratch of one worker, beside partials.
    struct space {
        T* q;                // (rows, q_width), zero-padded
        T* s;                // (rows, tile): logits, then weights
        T* widened;          // rows of a source that are not contiguous
        std::uint64_t* seen; // (rows): bit k, the row sees key k of the tile
        space(carver& from, const shape& x)
            : q(from.take<T>(x.rows() * x.q_width())), s(from.take<T>(x.rows() * tile)),
              widened(from.take<T>(tile * std::max(x.q_width(), x.o_width()))),
              seen(from.take<std::uint64_t>(x.rows())) {}
    };

    /// A tile of keys and where their rows are.
    struct streamed {
        range keys;
        K k[tile];
        V v[tile];
    };

    split_pass(const Source& source, const Mask& mask, const Score& score, const Weight& weight, const shape& x,
               index_t b, index_t g, index_t shift, T product_factor, const space& s)
        : source_(source), mask_(mask), score_(score), weight_(weight), x_(x), b_(b), g_(g), shift_(shift),
          factor_(product_factor), places_{positions_of(source, b, g), source.keys(b, g)}, s_(s) {}

    template <class Q>
    void load_queries(const view<const Q>& q) {
        load_group<A>(q, source_, b_, g_, factor_, s_.q, x_.q_width());
    }

    /// kept: null, or (rows, kept_stride) logits, in base 2 for softmax, -inf where hidden; those of `keys` are filled in.
    void attend(range keys, row_partials<T>& out, T* kept = nullptr, index_t kept_stride = 0) {
        kept_ = kept;
        kept_stride_ = kept_stride;
        for (index_t r = 0; r < x_.rows() && kept; ++r)
            std::fill(kept + r * kept_stride + keys.first, kept + r * kept_stride + keys.last,
                      -std::numeric_limits<T>::infinity());
        std::fill_n(out.m, x_.rows(), no_maximum<T>);
        std::fill_n(out.l, x_.rows(), T(0));
        std::fill_n(out.seen, x_.rows(), T(0));
        std::fill_n(out.o, x_.rows() * x_.o_width(), T(0));
        // While a tile is worked on, the rows of the next are asked for, so that memory is not waited for.
        collect(next_tile(keys));
        while (!coming_.keys.empty()) {
            now_ = coming_;
            collect(next_tile({now_.keys.last, keys.last}));
            attend_tile(out);
        }
    }

private:
    index_t head(index_t r) const { return g_ * x_.group + r / x_.N; }
    rows at(index_t h) const { return {b_, g_ * x_.group + h, shift_, shift_ + x_.N, shift_}; }
    decltype(auto) visible() const {
        if constexpr (placed_source<Source>)
            return placed_mask<Mask>{mask_, places_};
        else
            return (mask_);
    }

    /// The next tile that some row sees. Tiles lie on a grid, so that a row's bits do not depend on the other rows.
    range next_tile(range keys) const {
        index_t nearest = no_key;
        for (index_t h = 0; h < x_.group && nearest > keys.first && !keys.empty(); ++h)
            nearest = std::min(nearest, next(visible(), at(h), keys.first));
        if (nearest >= keys.last) return {keys.last, keys.last};
        const index_t first = std::max(keys.first, nearest / tile * tile);
        return {first, std::min(first + tile, keys.last)};
    }

    /// The rows of the tile to come. Beyond the last key, those of an earlier tile remain to be asked for, which do no harm.
    void collect(range keys) {
        coming_.keys = keys;
        const auto take = [&](index_t j, const K& k, const V& v) HEED_INLINE_LAMBDA {
            const index_t c = j - keys.first;
            coming_.k[c] = k, coming_.v[c] = v;
            ask_k_[c] = k.address(0), ask_v_[c] = v.address(0);
        };
        if constexpr (requires { source_.each_row(b_, g_, keys, take); })
            return source_.each_row(b_, g_, keys, take);
        for (index_t j = keys.first; j < keys.last;) {
            const auto run = source_.run(b_, g_, j);
            for (; j < std::min(run.keys.last, keys.last); ++j)
                take(j, run.k.from(j - run.keys.first), run.v.from(j - run.keys.first));
        }
    }

    HEED_NOINLINE void attend_tile(row_partials<T>& out) {
        const index_t count = now_.keys.size();
        if (now_.k[0].contiguous()) {
            dots<A>(now_.k, ask_k_, count, x_.D, s_.q, x_.q_width(), x_.rows(), s_.s);
        } else {
            const auto wide = widen(now_.k, count, x_.D, x_.q_width());
            dots<A>(wide.data(), ask_k_, count, x_.D, s_.q, x_.q_width(), x_.rows(), s_.s);
        }
        const bool partial = look(now_.keys, out);
        weigh(now_.keys, now_.k, now_.v, partial, out);
        if (!V::has_factor && partial && !finite(now_.v, count)) return add_guarded(now_.v, count, out);
        if (now_.v[0].contiguous()) {
            accumulate<A>(now_.v, ask_v_, count, x_.E, s_.s, x_.rows(), out.o, x_.o_width());
        } else {
            const auto wide = widen(now_.v, count, x_.E, x_.o_width());
            accumulate<A>(wide.data(), ask_v_, count, x_.E, s_.s, x_.rows(), out.o, x_.o_width());
        }
    }

    /// Rows whose elements are apart, side by side in scratch.
    template <class Rows>
    std::array<plain_rows<T>, static_cast<std::size_t>(tile)> widen(const Rows* from, index_t count, index_t width,
                                                                    index_t stride) const {
        std::array<plain_rows<T>, static_cast<std::size_t>(tile)> wide;
        for (index_t k = 0; k < count; ++k) {
            wide[static_cast<std::size_t>(k)] = {s_.widened + k * stride, stride, 1};
            widen_row<A>(from[k], 0, width, s_.widened + k * stride);
        }
        return wide;
    }

    /// Fills in who sees what; returns whether some pair is hidden.
    bool look(range keys, row_partials<T>& out) {
        const std::uint64_t all = ~std::uint64_t(0) >> (64 - keys.size());
        bool partial = false;
        for (index_t h = 0; h < x_.group; ++h) {
            std::uint64_t* seen = s_.seen + h * x_.N;
            const bool whole = full(visible(), at(h), keys);
            std::fill_n(seen, x_.N, whole ? all : 0);
            for (index_t j = keys.first; j < keys.last && !whole; j += 8) {
                const int n = static_cast<int>(std::min<index_t>(8, keys.last - j));
                const lane_bits pairs = bits(visible(), at(h), j, n);
                for (int c = 0; c < n; ++c)
                    for (index_t i = 0; i < x_.N; ++i)
                        seen[i] |= std::uint64_t(pairs.key[static_cast<std::size_t>(c)] >> i & 1)
                                   << (j - keys.first + c);
            }
            for (index_t i = 0; i < x_.N; ++i) {
                partial |= seen[i] != all;
                if (seen[i]) out.seen[h * x_.N + i] = T(1);
            }
        }
        return partial;
    }

    /// Turns products into weights, row by row, lanes over keys.
    void weigh(range keys, const K* k, const V* v, bool partial, row_partials<T>& out) {
        const index_t count = keys.size(), packs = ceil_div(count, L);
        alignas(64) T k_factor[tile], v_factor[tile];
        for (index_t c = 0; c < packs * L; ++c) {
            if constexpr (K::has_factor) k_factor[c] = c < count ? static_cast<T>(k[c].factor(0)) : T(0);
            if constexpr (V::has_factor) v_factor[c] = c < count ? static_cast<T>(v[c].factor(0)) : T(0);
        }
        index_t places[tile];
        if (maps_logits && places_.at)
            for (index_t c = 0; c < packs * L; ++c) places[c] = places_.of(keys.first + c);
        const P hidden(-std::numeric_limits<T>::infinity());
        const bool ragged = partial || count % L != 0;
        for (index_t r = 0; r < x_.rows(); ++r) {
            T* const s = s_.s + r * tile;
            P top = hidden, x;
            for (index_t c = 0; c < packs * L; c += L) {
                x = load_aligned<P>(s + c);
                if constexpr (K::has_factor) x *= load_aligned<P>(k_factor + c);
                if constexpr (maps_logits) {
                    const index_t n = r % x_.N;
                    x = mapped(x, where{b_, head(r), n, n + shift_, keys.first + c, lane_axis::keys,
                                        places_.at ? places + c : nullptr});
                }
                if (ragged) x = select(mask_of_bits<T, A>(static_cast<std::uint32_t>(s_.seen[r] >> c)), x, hidden);
                top = max(top, x);
                store_aligned(s + c, x);
            }
            if (kept_) std::copy_n(s, count, kept_ + r * kept_stride_ + keys.first);
            if constexpr (Weight::normalised) follow(r, greatest(top), out);
            P sum(T(0));
            const P m(out.m[r]);
            for (index_t c = 0; c < packs * L; c += L) {
                x = load_aligned<P>(s + c);
                if constexpr (Weight::normalised) {
                    x = exp2_nonpositive(x - m);
                    sum += x;
                } else {
                    x = select(x == hidden, P(T(0)), weight_(x));
                }
                if constexpr (V::has_factor) x *= load_aligned<P>(v_factor + c);
                store_aligned(s + c, x);
            }
            if constexpr (Weight::normalised) out.l[r] += reduce_add(sum);
        }
    }

    HEED_INLINE P mapped(P x, const where& w) const {
        if constexpr (!std::is_same_v<Score, identity>) x = score_(x, w);
        if constexpr (additive_mask<Mask>) x = mask_.add(x, w);
        return Weight::normalised ? x * P(log2_e<T>) : x;
    }

    static T greatest(const P& x) {
        alignas(64) T at[P::size];
        store_aligned(at, x);
        return *std::max_element(at, at + P::size);
    }

    /// The rule of follow_maximum, for one row.
    void follow(index_t r, T top, row_partials<T>& out) const {
        if (!(top > out.m[r] + softmax_slack<T>)) return;
        const T alpha = std::exp2(out.m[r] - top);
        out.m[r] = top;
        out.l[r] *= alpha;
        T* const o = out.o + r * x_.o_width();
        for (index_t e = 0; e < x_.o_width(); ++e) o[e] *= alpha;
    }

    bool finite(const V* v, index_t count) const {
        for (index_t k = 0; k < count; ++k)
            if (!all_finite<A, T>(v[k], 0, x_.E)) return false;
        return true;
    }
    /// Where V holds a NaN or inf that some row must not see: 0 * NaN is NaN, so each row adds what it sees.
    HEED_NOINLINE void add_guarded(const V* v, index_t count, row_partials<T>& out) const {
        for (index_t r = 0; r < x_.rows(); ++r)
            for (index_t k = 0; k < count; ++k) {
                if (!(s_.seen[r] >> k & 1)) continue;
                for (index_t e = 0; e < x_.E; ++e)
                    out.o[r * x_.o_width() + e] += s_.s[r * tile + k] * static_cast<T>(v[k].number(0, e));
            }
    }

    const Source& source_;
    const Mask& mask_;
    const Score& score_;
    const Weight& weight_;
    shape x_;
    index_t b_, g_, shift_;
    T factor_;
    key_places places_;
    space s_;
    T* kept_ = nullptr;
    index_t kept_stride_ = 0;
    streamed now_, coming_;
    const void* ask_k_[tile] = {};
    const void* ask_v_[tile] = {};
};

}  // namespace heed::inline HEED_ABI::detail
