// The rows of a stretch of keys, tile by tile as tile/streamed.hpp takes them, from whatever source.
//
//   stretch     four runs of keys, met side by side; tile t is what they have in [t, t + 1) * streamed_run
//   a tile      a name for each of its rows: where it starts, no more, since a table of sixty-four is made for each
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "../tile/streamed_bytes.hpp"
#include "attention_operands.hpp"

namespace heed::inline HEED_ABI::detail {

/// One stretch of keys: four runs of `run` keys, of which the last ones may be cut short. Places are counted from the first
/// key. What is kept of every key lies tile by tile, since the processor's prefetchers have eyes for few streams at once
/// (measured: 17 GB/s by places, 22 by tiles).
struct key_stretch {
    range keys;
    index_t run;

    explicit key_stretch(range of) : keys(of), run(round_up(ceil_div(of.size(), 4), streamed_run)) {}
    index_t tiles() const { return run / streamed_run; }
    /// The places that tile t has in run c; empty where the run is cut short before.
    range places(index_t t, index_t c) const {
        const index_t first = std::min(c * run + t * streamed_run, keys.size());
        return {first, std::min({first + streamed_run, c * run + run, keys.size()})};
    }
};

/// A tile. Where a run has fewer rows, or keys that nobody sees, others stand.
template <class Row>
struct streamed_rows {
    named_rows<Row> rows;
    std::uint64_t present;  // bit k: row k is one of the tile's own
    index_t longest;        // keys of the longest run
};

/// Of one head of a source, stretch by stretch.
template <class Source>
class stretch_rows {
public:
    using K = typename Source::key_rows;
    using V = typename Source::value_rows;
    using run = source_run<K, V>;

    /// copied: null, or the scratch that rows need whose elements are apart.
    stretch_rows(const Source& source, index_t b, index_t g, std::byte* copied)
        : source_(source), b_(b), g_(g), copied_(copied) {}

    /// Bytes of that scratch; 0 for a source whose rows are contiguous.
    static index_t bytes_copied(const Source& source) {
        for (index_t b = 0; b < source.batch(); ++b)
            for (index_t g = 0; g < source.heads(); ++g)
                if (source.keys(b, g) > 0) {
                    const run first = source.run(b, g, 0);
                    return first.k.contiguous() && first.v.contiguous()
                               ? 0
                               : 2 * streamed_tile * std::max(source.key_width() * bytes_of<K>, source.value_width() * bytes_of<V>);
                }
        return 0;
    }

    /// The stretch that follows; bit p % 64 of present[p / 64]: place p is met, as are all that share its tile's run.
    void open(const key_stretch& stretch, const std::uint64_t* present) {
        stretch_ = &stretch;
        present_ = present;
        even_.reset();
        if (copied_) return;
        const index_t first = stretch.keys.first;
        if (const run all = source_.run(b_, g_, first); all.keys.last >= stretch.keys.last)
            even_ = run{stretch.keys, all.k.from(first - all.keys.first), all.v.from(first - all.keys.first)};
    }

    /// Calls body(t, tile, ask) for every tile that is met, in order; `of`: &run::k or &run::v, rows of so many elements;
    /// `ask`: whether those that follow a row are to be asked for.
    template <class Rows, class Body>
    void each_tile(Rows run::*of, index_t width, const Body& body) const {
        constexpr bool ask = asked_for<lone<Rows>>;
        streamed_rows<lone<Rows>> tiles[2];
        collect(of, 0, width, tiles[0]);
        for (index_t t = 0, last = stretch_->tiles() - 1; t <= last; ++t) {
            auto& now = tiles[t % 2];
            auto& coming = tiles[(t + 1) % 2];
            if (t < last) collect(of, t + 1, width, coming);
            if (!now.present) continue;
            if (ask) now.rows.follow(t < last && coming.present ? coming.rows : now.rows);
            body(t, now, ask);
        }
    }

    /// The factors of all keys of the stretch, or of all values, (tiles, streamed_tile); those of places that are not met
    /// stay as they are.
    template <class Rows, class T>
    void factors(Rows run::*of, T* to) const {
        for (index_t t = 0; t < stretch_->tiles(); ++t)
            for (index_t c = 0; c < 4; ++c) {
                T* const here = to + t * streamed_tile + c * streamed_run;
                each_row(met(t, c), [&](index_t i, const run& from, index_t row) {
                    here[i] = static_cast<T>((from.*of).factor(row));
                });
            }
    }

private:
    template <class Rows>
    static constexpr index_t bytes_of = sizeof(typename Rows::storage);

    /// Whether the program asks for rows to come: where rows may lie anywhere, since no prefetcher foresees them, and those
    /// of 16 bits and fewer, of which the arithmetic takes nearly as long as reading and must not wait (measured, one core
    /// that reads 14 GB/s: bf16 11.6 for 8.2; pages of 16 rows 1.06 of the time of rows in one piece, for 1.19). Other floats
    /// are read as fast as they come in any case.
    template <class Row>
    static constexpr bool asked_for = !is_view_source<Source> || Row::bits <= 16;

    bool is_met(index_t place) const { return present_[place / 64] >> place % 64 & 1; }
    /// The keys that tile t meets of run c.
    range met(index_t t, index_t c) const {
        const range places = stretch_->places(t, c);
        if (places.empty() || !is_met(places.first)) return {0, 0};
        return {stretch_->keys.first + places.first, stretch_->keys.first + places.last};
    }
    /// Whether tile t meets all keys it can have.
    bool whole(index_t t) const {
        bool all = 3 * stretch_->run + (t + 1) * streamed_run <= stretch_->keys.size();
        for (index_t c = 0; c < 4 && all; ++c) all = is_met(c * stretch_->run + t * streamed_run);
        return all;
    }

    /// take(i, run, row): the i-th of at most streamed_run keys has that row of the run.
    template <class Take>
    HEED_INLINE void each_row(range keys, const Take& take) const {
        const auto one = [&](index_t j, const K& k, const V& v) HEED_INLINE_LAMBDA {
            take(j - keys.first, run{{j, j + 1}, k, v}, 0);
        };
        if constexpr (requires { source_.each_row(b_, g_, keys, one); }) {
            source_.each_row(b_, g_, keys, one);
        } else {
            for (index_t j = keys.first; j < keys.last;) {
                const run from = source_.run(b_, g_, j);
                const index_t skipped = j - from.keys.first;
                const index_t first = j - keys.first, count = std::min(from.keys.last, keys.last) - j;
                const auto all = [&](auto n) HEED_INLINE_LAMBDA {
                    for (index_t i = 0; i < n; ++i) take(first + i, from, skipped + i);
                };
                if (count == streamed_run) all(std::integral_constant<index_t, streamed_run>{});
                else all(count);
                j += count;
            }
        }
    }

    /// Fills in tile t.
    template <class Rows, class Row>
    HEED_NOINLINE void collect(Rows run::*of, index_t t, index_t width, streamed_rows<Row>& to) const {
        if (even_ && whole(t)) {
            for (index_t c = 0; c < 4; ++c) {
                const Rows rows = ((*even_).*of).from(c * stretch_->run + t * streamed_run);
                for (index_t i = 0; i < streamed_run; ++i) to.rows[c * streamed_run + i] = alone(rows.from(i));
            }
            to.present = ~std::uint64_t(0);
            to.longest = streamed_run;
            return;
        }
        to.present = 0;
        to.longest = 0;
        const Row* some = nullptr;
        for (index_t c = 0; c < 4; ++c) {
            const range keys = met(t, c);
            if (keys.empty()) continue;
            Row* const row = &to.rows[c * streamed_run];
            if (copied_) {
                auto* const copies = reinterpret_cast<typename Rows::storage*>(copied_) + (t % 2 * 4 + c) * streamed_run * width;
                each_row(keys, [&](index_t i, const run& from, index_t at) {
                    row[i] = alone((from.*of).from(at), width, copies + i * width);
                });
            } else {
                each_row(keys, [&](index_t i, const run& from, index_t at) HEED_INLINE_LAMBDA {
                    row[i] = alone((from.*of).from(at));
                });
            }
            const index_t count = keys.size();
            for (index_t i = count; i < streamed_run; ++i) row[i] = row[count - 1];
            to.present |= (~std::uint64_t(0) >> (64 - count)) << (c * streamed_run);
            to.longest = std::max(to.longest, count);
            some = row;
        }
        for (index_t c = 0; c < 4 && some; ++c)
            if (!(to.present >> (c * streamed_run) & 1)) std::copy_n(some, streamed_run, &to.rows[c * streamed_run]);
    }

    const Source& source_;
    index_t b_, g_;
    std::byte* copied_;  // two tiles
    const key_stretch* stretch_ = nullptr;
    const std::uint64_t* present_ = nullptr;
    std::optional<run> even_;  // the stretch, where all its rows lie evenly
};

}  // namespace heed::inline HEED_ABI::detail
