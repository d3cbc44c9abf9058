// Attention of a few queries over many keys: the keys are split over tasks, each K and V row is read once for all query
// rows of its group, and lanes run along the width.
//
//   part p of head g:  (m, l, o)_p over its keys, stretch by stretch: S = q K^T, softmax, o += P V
//   row:               parts merge in order, then close: o / l, sink, log-sum-exp
// Bound by reading K and V once. A stretch is four runs of keys that are read side by side, see tile/streamed.hpp; the
// longer they are the better the processor foresees what comes. How keys are cut depends on how many there are and on
// nothing else, so the bits do not depend on threads, on other sequences, or on which tasks ran at once.
#pragma once

#include <algorithm>
#include <bit>

#include "../core/context.hpp"
#include "../policy/score.hpp"
#include "../tile/softmax.hpp"
#include "closing.hpp"
#include "group_rows.hpp"
#include "placed.hpp"
#include "split_rows.hpp"

namespace heed::inline HEED_ABI::detail {

/// Most keys of a stretch.
inline constexpr index_t most_of_stretch = 1024;

/// Parts a head's keys are cut into: at least 512 keys each, at most 32 of them, one of no keys; and those into
/// stretches of one length.
struct split_cut {
    static constexpr index_t fewest_keys = 512, most_parts = 32;
    index_t span, parts, stretch;

    explicit split_cut(index_t keys)
        : span(std::max(fewest_keys, round_up(ceil_div(keys, most_parts), streamed_tile))), parts(ceil_div(keys, span)),
          stretch(round_up(ceil_div(span, ceil_div(span, most_of_stretch)), streamed_tile)) {}
    static index_t most(index_t keys) { return std::clamp<index_t>(ceil_div(keys, fewest_keys), 1, most_parts); }
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
    using run = source_run<K, V>;
    static constexpr index_t L = lanes<T, A>, tile = streamed_tile, stretch = most_of_stretch, words = stretch / 64;
    static constexpr bool integer_keys = met_in_integers<lone<K>, T, A>, integer_values = met_in_integers<lone<V>, T, A>;
    using key_products = products_of<lone<K>, T, A>;
    using value_products = products_of<lone<V>, T, A>;
    static constexpr bool maps_logits = !std::is_same_v<Score, identity> || additive_mask<Mask>;

    struct shape {
        index_t N, group, D, E;
        index_t copied;  // bytes of scratch for rows whose elements are apart
        index_t rows() const { return N * group; }
        index_t q_width() const { return round_up(D, integer_keys ? 64 : key_products::step); }
        index_t o_width() const { return round_up(E, value_products::step); }
    };

    /// Scratch of one worker, beside partials. Bit p % 64 of word p / 64 is place p of the stretch.
    struct space {
        T* q;                 // (rows, q_width), zero-padded
        T* s;                 // (tiles, rows, streamed_tile): logits, then weights
        std::byte* copied;    // null, or for stretch_rows
        std::int16_t* integers;  // (rows, q_width): q as integers, and their scales, where keys are met so
        T* scale;
        T* k_factor;          // (tiles, streamed_tile): of keys and values, where their format has one
        T* v_factor;
        std::uint64_t* seen;  // (rows, words): the keys the row sees
        space(carver& from, const shape& x)
            : q(from.take<T>(x.rows() * x.q_width())), s(from.take<T>(x.rows() * stretch)),
              copied(x.copied > 0 ? from.take<std::byte>(x.copied) : nullptr),
              integers(from.take<std::int16_t>(integer_keys ? x.rows() * x.q_width() : 0)),
              scale(from.take<T>(integer_keys ? x.rows() : 0)),
              k_factor(from.take<T>(K::has_factor ? stretch : 0)), v_factor(from.take<T>(V::has_factor ? stretch : 0)),
              seen(from.take<std::uint64_t>(x.rows() * words)) {}
    };

    split_pass(const Source& source, const Mask& mask, const Score& score, const Weight& weight, const shape& x,
               index_t b, index_t g, index_t shift, T product_factor, const space& s)
        : source_(source), mask_(mask), score_(score), weight_(weight), x_(x), b_(b), g_(g), shift_(shift),
          factor_(product_factor), places_{positions_of(source, b, g), source.keys(b, g)}, s_(s),
          rows_(source, b, g, s.copied) {}

    template <class Q>
    void load_queries(const view<const Q>& q) {
        load_group<A>(q, source_, b_, g_, factor_, s_.q, x_.q_width());
        arrange<key_products>(s_.q, x_.rows() * x_.q_width());
        if constexpr (integer_keys) round_queries<A>(s_.q, x_.rows(), x_.q_width(), x_.D, s_.integers, s_.scale);
    }

    /// `each`: keys of a stretch. kept: null, or (rows, kept_stride) logits, in base 2 for softmax, -inf where hidden; those
    /// of `keys` are filled in.
    void attend(range keys, index_t each, row_partials<T>& out, T* kept = nullptr, index_t kept_stride = 0) {
        kept_ = kept;
        kept_stride_ = kept_stride;
        std::fill_n(out.m, x_.rows(), no_maximum<T>);
        std::fill_n(out.l, x_.rows(), T(0));
        std::fill_n(out.seen, x_.rows(), T(0));
        std::fill_n(out.o, x_.rows() * x_.o_width(), T(0));
        for (index_t j = keys.first; j < keys.last;) {
            const index_t nearest = std::min(nearest_seen(j), keys.last);
            // Stretches lie on a grid, so that a row's bits do not depend on the other rows.
            const index_t first = nearest == keys.last ? nearest : nearest - (nearest - keys.first) % each;
            if (kept) keep_hidden({j, first});
            j = std::min(first + each, keys.last);
            if (first < j) attend_stretch(key_stretch({first, j}), out);
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
    /// The first key from j on that some row sees.
    index_t nearest_seen(index_t j) const {
        index_t nearest = no_key;
        for (index_t h = 0; h < x_.group && nearest > j; ++h) nearest = std::min(nearest, next(visible(), at(h), j));
        return nearest;
    }

    /// Keys that no row sees.
    void keep_hidden(range keys) const {
        for (index_t r = 0; r < x_.rows(); ++r)
            std::fill_n(kept_ + r * kept_stride_ + keys.first, keys.size(), -std::numeric_limits<T>::infinity());
    }

    HEED_NOINLINE void attend_stretch(const key_stretch& now, row_partials<T>& out) {
        look(now, out);
        rows_.open(now, present_);
        meet_keys();
        weigh(now, out);
        meet_values(now, out);
    }

    /// Of row r with tile t.
    T* logits(index_t t, index_t r) const { return s_.s + (t * x_.rows() + r) * tile; }

    void meet_keys() {
        if constexpr (K::has_factor) rows_.factors(&run::k, s_.k_factor);
        if constexpr (V::has_factor) rows_.factors(&run::v, s_.v_factor);
        rows_.each_tile(&run::k, x_.D, [&](index_t t, const auto& k, bool ask) {
            if constexpr (integer_keys)
                dots_in_integers<A>(k.rows, ask, k.longest, x_.D, s_.integers, x_.q_width(), x_.rows(), logits(t, 0));
            else
                dots<key_products>(k.rows, ask, k.longest, x_.D, s_.q, x_.q_width(), x_.rows(), logits(t, 0));
        });
    }

    void meet_values(const key_stretch& now, row_partials<T>& out) {
        rows_.each_tile(&run::v, x_.E, [&](index_t t, const auto& v, bool ask) {
            if (!V::has_factor && hides_ && hidden_in(now, t) && !finite(v)) return add_guarded(now, t, v, out);
            if constexpr (integer_values)
                accumulate_in_integers<A>(v.rows, ask, v.present, x_.E, logits(t, 0), x_.rows(), out.o, x_.o_width());
            else
                accumulate<value_products>(v.rows, ask, v.present, x_.E, logits(t, 0), x_.rows(), out.o, x_.o_width());
        });
    }

    /// Fills in who sees what: seen, present_ and hides_.
    void look(const key_stretch& now, row_partials<T>& out) {
        std::fill_n(present_, words, std::uint64_t(0));
        std::fill_n(hidden_, words, std::uint64_t(0));
        for (index_t h = 0; h < x_.group; ++h) {
            const bool whole = full(visible(), at(h), now.keys);
            for (index_t first = now.keys.first, w = 0; first < now.keys.last; first += 64, ++w)
                look(h, {first, std::min(first + 64, now.keys.last)}, w, whole);
        }
        hides_ = std::any_of(hidden_, hidden_ + words, [](std::uint64_t w) { return w != 0; });
        for (index_t r = 0; r < x_.rows(); ++r) {
            const std::uint64_t* const mine = s_.seen + r * words;
            if (std::any_of(mine, mine + ceil_div(now.keys.size(), 64), [](std::uint64_t w) { return w != 0; }))
                out.seen[r] = T(1);
        }
    }
    /// The same for word w of the rows of a head, of which these are the keys.
    void look(index_t h, range keys, index_t w, bool whole) {
        const std::uint64_t all = ~std::uint64_t(0) >> (64 - keys.size());
        const auto seen = [&](index_t i) -> std::uint64_t& { return s_.seen[(h * x_.N + i) * words + w]; };
        whole = whole || full(visible(), at(h), keys);
        for (index_t i = 0; i < x_.N; ++i) seen(i) = whole ? all : 0;
        if (!whole && next(visible(), at(h), keys.first) < keys.last)
            for (index_t j = keys.first; j < keys.last; j += 8) {
                const int n = static_cast<int>(std::min<index_t>(8, keys.last - j));
                const lane_bits pairs = bits(visible(), at(h), j, n);
                for (int c = 0; c < n; ++c)
                    for (index_t i = 0; i < x_.N; ++i)
                        seen(i) |= std::uint64_t(pairs.key[static_cast<std::size_t>(c)] >> i & 1) << (j - keys.first + c);
            }
        for (index_t i = 0; i < x_.N; ++i) {
            if (seen(i)) present_[w] = ~std::uint64_t(0);  // such keys are met sixty-four at a time
            hidden_[w] |= all & ~seen(i);
        }
    }
    /// Whether some row does not see some key of a tile.
    bool hidden_in(const key_stretch& now, index_t t) const {
        for (index_t c = 0; c < 4; ++c)
            if (const range places = now.places(t, c); !places.empty())
                if (hidden_[places.first / 64] >> places.first % 64 & (~std::uint64_t(0) >> (64 - places.size()))) return true;
        return false;
    }

    /// Turns products into weights, row by row, lanes over keys.
    void weigh(const key_stretch& now, row_partials<T>& out) {
        const P hidden(-std::numeric_limits<T>::infinity());
        const bool ragged = hides_ || now.keys.size() != now.tiles() * tile;
        const auto each_pack = [&](index_t r, const auto& body) HEED_INLINE_LAMBDA {
            for (index_t t = 0; t < now.tiles(); ++t)
                for (index_t i = 0; i < tile; i += L)
                    body(logits(t, r) + i, t * tile + i, i / streamed_run * now.run + t * streamed_run + i % streamed_run);
        };
        for (index_t r = 0; r < x_.rows(); ++r) {
            const std::uint64_t* const seen = s_.seen + r * words;
            P top = hidden, x;
            each_pack(r, [&](T* s, [[maybe_unused]] index_t factor, index_t place) HEED_INLINE_LAMBDA {
                x = load_aligned<P>(s);
                if constexpr (K::has_factor) x *= load_aligned<P>(s_.k_factor + factor);
                if constexpr (integer_keys) x *= P(s_.scale[r]);
                if constexpr (maps_logits) x = mapped(x, r, now.keys.first + place);
                if (ragged) x = select(mask_of_bits<T, A>(static_cast<std::uint32_t>(seen[place / 64] >> place % 64)), x, hidden);
                top = max(top, x);
                store_aligned(s, x);
                if (!kept_) return;
                T* const kept = kept_ + r * kept_stride_ + now.keys.first;
                if (place + L <= now.keys.size()) return store_aligned(kept + place, x);
                for (index_t l = place; l < now.keys.size(); ++l) kept[l] = s[l - place];
            });
            if constexpr (Weight::normalised) follow(r, greatest(top), out);
            P sum(T(0));
            const P m(out.m[r]);
            each_pack(r, [&](T* s, [[maybe_unused]] index_t factor, index_t) HEED_INLINE_LAMBDA {
                x = load_aligned<P>(s);
                if constexpr (Weight::normalised) {
                    x = exp2_nonpositive(x - m);
                    sum += x;
                } else {
                    x = select(x == hidden, P(T(0)), weight_(x));
                }
                if constexpr (V::has_factor) x *= load_aligned<P>(s_.v_factor + factor);
                store_aligned(s, x);
            });
            if constexpr (Weight::normalised) out.l[r] += reduce_add(sum);
        }
    }

    HEED_INLINE P mapped(P x, index_t r, index_t key) const {
        index_t places[P::size];
        if (places_.at)
            for (index_t c = 0; c < L; ++c) places[c] = places_.of(key + c);
        const index_t n = r % x_.N;
        return mapped(x, where{b_, head(r), n, n + shift_, key, lane_axis::keys, places_.at ? places : nullptr});
    }
    HEED_INLINE P mapped(P x, const where& w) const {
        if constexpr (!std::is_same_v<Score, identity>) x = score_(x, w);
        if constexpr (additive_mask<Mask>) x = mask_.add(x, w);
        return Weight::normalised ? finite_in_base_two(x) * P(log2_e<T>) : x;
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

    bool finite(const streamed_rows<lone<V>>& v) const {
        for (std::uint64_t left = v.present; left; left &= left - 1)
            if (!all_finite<A, T>(v.rows[std::countr_zero(left)], 0, x_.E)) return false;
        return true;
    }
    /// Where V holds a NaN or inf that some row must not see: 0 * NaN is NaN, so each row adds what it sees, with
    /// the bits that it has otherwise.
    HEED_NOINLINE void add_guarded(const key_stretch& now, index_t t, const streamed_rows<lone<V>>& v,
                                    row_partials<T>& out) const {
        const met_values met(v.present);
        for (index_t r = 0; r < x_.rows(); ++r)
            for (index_t i = 0; i < met.count(); ++i) {
                const index_t k = met[i], place = now.places(t, k / streamed_run).first + k % streamed_run;
                if (!(s_.seen[r * words + place / 64] >> place % 64 & 1)) continue;
                for (index_t e = 0; e < x_.E; ++e) {
                    T& o = out.o[r * x_.o_width() + value_products::place(e)];
                    o = fma_number<A>(logits(t, r)[k], static_cast<T>(v.rows[k].number(0, e)), o);
                }
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
    stretch_rows<Source> rows_;
    T* kept_ = nullptr;
    index_t kept_stride_ = 0;
    std::uint64_t present_[words] = {};  // keys of the stretch that somebody sees, or stand among sixty-four with such
    std::uint64_t hidden_[words] = {};   // keys that somebody does not see
    bool hides_ = false;                 // there are such
};

}  // namespace heed::inline HEED_ABI::detail
