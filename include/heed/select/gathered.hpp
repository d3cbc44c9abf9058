// gathered: the chosen keys of a source as a source of their own, at the positions where they stand, so that masks, scores,
// sinks and probes meet them as if the others had been hidden. Nothing is copied: neighbours chosen together are one run.
#pragma once

#include <vector>

#include "../policy/source.hpp"

namespace heed::inline HEED_ABI {

/// Keys chosen of each head of a source: ascending indices for head (b, g).
class key_lists {
public:
    key_lists() = default;
    key_lists(index_t B, index_t G) : B_(B), G_(G), lists_(static_cast<std::size_t>(B * G)) {}

    index_t batch() const { return B_; }
    index_t heads() const { return G_; }
    std::vector<index_t>& operator()(index_t b, index_t g) { return lists_[static_cast<std::size_t>(b * G_ + g)]; }
    const std::vector<index_t>& operator()(index_t b, index_t g) const {
        return lists_[static_cast<std::size_t>(b * G_ + g)];
    }
    /// These keys too, behind those of the list.
    void add(index_t b, index_t g, range keys) {
        auto& list = (*this)(b, g);
        for (index_t j = keys.first; j < keys.last; ++j) list.push_back(j);
    }
    /// Keys of all heads.
    index_t size() const {
        std::size_t sum = 0;
        for (const auto& list : lists_) sum += list.size();
        return static_cast<index_t>(sum);
    }

private:
    index_t B_ = 0, G_ = 0;
    std::vector<std::vector<index_t>> lists_;
};

/// The source must outlive it. Throws shape_error or argument_error where the lists are not those of some of its keys.
template <key_value_source Source>
class gathered {
public:
    using key_rows = typename Source::key_rows;
    using value_rows = typename Source::value_rows;

    gathered(const Source& source, key_lists lists) : source_(source), lists_(std::move(lists)) {
        check();
        if constexpr (places) name_positions();
    }

    index_t batch() const { return source_.batch(); }
    index_t heads() const { return source_.heads(); }
    index_t keys(index_t b, index_t g) const { return static_cast<index_t>(lists_(b, g).size()); }
    index_t key_width() const { return source_.key_width(); }
    index_t value_width() const { return source_.value_width(); }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        constexpr index_t enough = 256;  // keys; no kernel takes more at once
        const std::vector<index_t>& list = lists_(b, g);
        const index_t* const at = list.data() + j;
        const auto run = source_.run(b, g, *at);
        const index_t most = std::min({static_cast<index_t>(list.size()) - j, run.keys.size(), enough});
        index_t n = 1;
        while (n < most && at[n] == at[0] + n) ++n;
        return {{j, j + n}, run.k, run.v};
    }
    template <class F>
    void each_row(index_t b, index_t g, range keys, const F& f) const {
        const index_t* const list = lists_(b, g).data();
        for (index_t j = keys.first; j < keys.last;) {
            const index_t first = list[j];
            const auto run = source_.run(b, g, first);
            for (; j < keys.last && list[j] < run.keys.last; ++j) f(j, run.k.from(list[j] - first), run.v.from(list[j] - first));
        }
    }

    const index_t* positions(index_t b, index_t g) const {
        if constexpr (places)
            if (source_.positions(b, g)) return positions_(b, g).data();
        return lists_(b, g).data();
    }
    index_t end(index_t b) const {
        if constexpr (requires { source_.end(b); })
            return source_.end(b);
        else
            return heads() > 0 ? source_.keys(b, 0) : 0;
    }
    void check_rows(const char* op, index_t n) const
        requires requires(const Source& s) { s.check_rows(op, n); }
    {
        source_.check_rows(op, n);
    }
    template <class T>
    void turn_query(T* row) const
        requires requires(const Source& s) { s.turn_query(row); }
    {
        source_.turn_query(row);
    }
    template <class T>
    void turn_output(T* row) const
        requires requires(const Source& s) { s.turn_output(row); }
    {
        source_.turn_output(row);
    }
    auto memory() const
        requires requires(const Source& s) { s.memory(); }
    {
        return source_.memory();
    }

    const key_lists& chosen() const { return lists_; }
    /// Bytes of the chosen keys and values as they are stored.
    index_t bytes() const {
        constexpr index_t factors = 4 * (key_rows::has_factor + value_rows::has_factor);
        return lists_.size() * (ceil_div(key_width() * key_rows::bits, 8) + ceil_div(value_width() * value_rows::bits, 8) + factors);
    }

private:
    static constexpr bool places = requires(const Source& s, index_t b) { s.positions(b, b); };

    void check() const {
        static constexpr const char* op = "gathered";
        require_shape(lists_.batch() == batch(), op, "the lists have batch ", lists_.batch(), ", the source has ",
                      batch());
        require_shape(lists_.heads() == heads(), op, "the lists have heads ", lists_.heads(), ", the source has ",
                      heads());
        for (index_t b = 0; b < batch(); ++b)
            for (index_t g = 0; g < heads(); ++g) {
                index_t last = -1;
                for (index_t key : lists_(b, g)) {
                    require_argument(key > last, op, "key ", key, " follows key ", last);
                    last = key;
                }
                require_argument(last < source_.keys(b, g), op, "key ", last, " of ", source_.keys(b, g));
            }
    }
    void name_positions() {
        positions_ = key_lists(batch(), heads());
        for (index_t b = 0; b < batch(); ++b)
            for (index_t g = 0; g < heads(); ++g)
                if (const index_t* const at = source_.positions(b, g))
                    for (index_t key : lists_(b, g)) positions_(b, g).push_back(at[key]);
    }

    const Source& source_;
    key_lists lists_, positions_;
};

}  // namespace heed::inline HEED_ABI
