// The lowest and the highest number of every channel over each page of keys: what Quest (arXiv:2406.10774) [65] keeps beside
// a cache, to bound the scores of a page without reading it.
//
// Bounds are kept in a storage type of their own: exactly where that is the keys', else rounded outward, so that they
// still are bounds; narrower ones are read faster. A page whose last keys are truncated is read again.
#pragma once

#include <bit>
#include <cmath>

#include "../core/aligned.hpp"
#include "../engine/group_rows.hpp"
#include "gathered.hpp"
#include "head_index.hpp"
#include "head_passes.hpp"
#include "page_scores.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// The least number of S that is not below x; infinity beyond the largest one, NaN of NaN.
template <storage S, class T>
S rounded_up(T x) {
    const S y = static_cast<S>(x);
    if (!(static_cast<T>(y) < x)) return y;
    if constexpr (std::is_floating_point_v<S>) {
        return std::nextafter(y, std::numeric_limits<S>::infinity());
    } else {
        const auto bits = std::bit_cast<std::uint16_t>(y);
        const bool negative = bits >> 15;
        return std::bit_cast<S>(static_cast<std::uint16_t>(bits == 0x8000u ? 1 : negative ? bits - 1 : bits + 1));
    }
}
template <storage S, class T>
S rounded_down(T x) {
    return -rounded_up<S>(-x);
}

template <storage S>
class page_head {
public:
    explicit page_head(index_t page) : page_(page) {}

    void open(index_t D, index_t) { D_ = D; }
    index_t size() const { return keys_; }
    void cut(index_t n) {
        keys_ = n;
        if (n >= read_) return;
        read_ = n / page_ * page_;
        bounds_.resize(static_cast<std::size_t>(ceil_div(read_, page_) * 2 * D_));
    }
    template <class Source>
    void read(const Source& source, index_t b, index_t g) {
        keys_ = source.keys(b, g);
        bounds_.resize(static_cast<std::size_t>(ceil_div(keys_, page_) * 2 * D_));
        std::vector<accumulator<S, typename Source::key_rows::storage>> key(static_cast<std::size_t>(D_));
        while (read_ < keys_) {
            const auto run = source.run(b, g, read_);
            for (; read_ < run.keys.last; ++read_) {
                widen_row<default_arch>(run.k, read_ - run.keys.first, D_, key.data());
                add(key);
            }
        }
    }
    index_t bytes() const { return static_cast<index_t>(bounds_.size() * sizeof(S)); }

    page_rows<S> rows() const { return {bounds_.data(), D_, page_, keys_}; }

private:
    template <class T>
    void add(const std::vector<T>& key) {
        S* const high = bounds_.data() + read_ / page_ * 2 * D_;
        S* const low = high + D_;
        const bool first = read_ % page_ == 0;
        for (index_t d = 0; d < D_; ++d) {
            const T x = key[static_cast<std::size_t>(d)];
            const bool nan = x != x;  // and it stays
            if (first || nan || x > static_cast<T>(high[d])) high[d] = rounded_up<S>(x);
            if (first || nan || x < static_cast<T>(low[d])) low[d] = rounded_down<S>(x);
        }
    }

    index_t page_, D_ = 0, keys_ = 0, read_ = 0;
    aligned_vector<S> bounds_;  // (pages, 2, D)
};

}  // namespace detail

/// How Quest chooses: so many pages, the first ones and the most recent ones always among them.
struct quest {
    index_t pages, first, recent;
    constexpr explicit quest(index_t k, index_t first_pages = 0, index_t last_pages = 1)
        : pages(k), first(first_pages), recent(last_pages) {}

    void check(const char* op) const {
        require_argument(pages >= 0, op, pages, " pages are chosen, the least is 0");
        require_argument(first >= 0, op, first, " first pages are chosen, the least is 0");
        require_argument(recent >= 0, op, recent, " recent pages are chosen, the least is 0");
    }
};

/// What is chosen, and the log of the mass that the keys outside are taken to have, (b, h, n).
struct page_choice {
    key_lists keys;
    std::vector<double> outside;
    index_t numbers = 0;  // of bounds that were read
};

template <storage S = float>
class page_bounds : public head_index<detail::page_head<S>> {
public:
    explicit page_bounds(index_t page = 16) : head_index<detail::page_head<S>>(detail::page_head<S>(page)) {
        require_argument(page >= 1, "page_bounds", "page is ", page, ", the least is 1");
    }

    /// Follows the source and chooses for q (B, H, N, D), one choice for all rows of a group; scores are scale q.k.
    /// Policy: on.
    template <class A = default_arch, class Q, key_value_source Source, class... P>
    page_choice choose(const view<Q>& q, const Source& source, const quest& rule, double scale, const P&... policies) {
        using T = accumulator<std::remove_const_t<Q>, S>;
        using pass = detail::page_scores<A, S, T>;
        this->follow(source, policies...);
        const index_t B = source.batch(), G = source.heads(), H = q.shape[1], N = q.shape[2];
        const index_t rows = G > 0 ? H / G * N : 0;
        page_choice out{key_lists(B, G), {}, 0};
        out.outside.assign(static_cast<std::size_t>(B * H * N), -std::numeric_limits<double>::infinity());
        std::vector<index_t> heads;  // where there is something to choose
        std::size_t bytes = 0;
        for (index_t t = 0; t < B * G; ++t) {
            const auto bounds = this->of(t / G, t % G).rows();
            if (bounds.pages() <= rule.pages) {
                out.keys.add(t / G, t % G, {0, bounds.keys});
                continue;
            }
            heads.push_back(t);
            out.numbers += bounds.pages() * 2 * bounds.D;
            carver one;
            pass(bounds, rows, one);
            bytes = std::max(bytes, one.used());
        }
        const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
        detail::run_passes(
            *context.pool, heads, bytes,
            [&](index_t t, carver& from) {
                const pass over(this->of(t / G, t % G).rows(), rows, from);
                detail::load_group<A>(view<const std::remove_const_t<Q>>(q), source, t / G, t % G,
                                      static_cast<T>(scale * log2_e<double>), over.queries(), over.query_stride());
                over.part_signs();
                return over;
            },
            [&](index_t t, const pass& over) {
                over.choose(rule.pages, rule.first, rule.recent, out.keys(t / G, t % G), out.outside.data() + t * rows);
            });
        return out;
    }
};

}  // namespace heed::inline HEED_ABI
