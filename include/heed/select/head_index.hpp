// What indices beside a cache have in common: a state for each of its heads, which reads the keys that are new, and
// forgets with the cache.
//
//   cache.append(k, v), index.follow(cache);      cache.truncate(2), index.truncate(2);
// The keys are read from the cache, so that the index knows them as they are stored. Traps: keys that change behind its
// back. Where a head lets go of keys (keep, a stream that moves on), the index has to clear(): it refuses a head that
// has let go of more keys than when it was last read. The newest keys of int8_per_channel change until their block is
// full.
#pragma once

#include <span>
#include <vector>

#include "../core/context.hpp"
#include "../engine/attention.hpp"

namespace heed::inline HEED_ABI {

/// Head, the state of one head:
///   open(D, E)               becomes the state of no keys
///   size()                   how many keys it knows
///   cut(n)                   forgets all but the first n
///   read(source, b, g)       knows all keys of this head, where the index can follow a source without its queries
///   bytes()
template <class Head>
class head_index {
public:
    /// Reads the keys the source holds beyond those known; the first source says how many heads there are. Policy: on.
    template <key_value_source Source, class... P>
    void follow(const Source& source, const P&... policies) {
        meet(source);
        each_head([&](Head& head, index_t b, index_t g) { head.read(source, b, g); }, policies...);
    }

    /// Forgets the last n keys of every head, or of those of sequence b, as truncate of a cache does.
    void truncate(index_t n) {
        for (index_t t = 0; t < count(); ++t) check_truncate(heads_[at(t)], n);
        for (Head& head : heads_) head.cut(head.size() - n);
    }
    void truncate(index_t b, index_t n) {
        require_argument(0 <= b && b < shape_[0], op, "sequence ", b, " of ", shape_[0]);
        for (index_t g = 0; g < shape_[1]; ++g) check_truncate(of(b, g), n);
        for (index_t g = 0; g < shape_[1]; ++g) own(b, g).cut(of(b, g).size() - n);
    }
    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new batch.
    void reorder(std::span<const index_t> parents) {
        std::vector<Head> next;
        std::vector<index_t> gone;
        for (index_t parent : parents) {
            require_argument(0 <= parent && parent < shape_[0], op, "sequence ", parent, " of ", shape_[0]);
            for (index_t g = 0; g < shape_[1]; ++g) {
                next.push_back(of(parent, g));
                gone.push_back(gone_[at(parent * shape_[1] + g)]);
            }
        }
        heads_ = std::move(next), gone_ = std::move(gone);
        shape_[0] = static_cast<index_t>(parents.size());
    }
    /// Forgets all.
    void clear() { open_ = false, shape_ = {}, heads_.clear(), gone_.clear(); }

    index_t batch() const { return shape_[0]; }
    index_t heads() const { return shape_[1]; }
    /// Keys known of a head.
    index_t keys(index_t b, index_t g) const { return of(b, g).size(); }
    index_t bytes() const {
        index_t sum = 0;
        for (const Head& head : heads_) sum += head.bytes();
        return sum;
    }
    const Head& of(index_t b, index_t g) const { return heads_[at(b * shape_[1] + g)]; }

protected:
    static constexpr const char* op = "index";

    explicit head_index(const Head& prototype) : prototype_(prototype) {}

    /// Checks that the source is the one that was followed; the first one says how many heads there are.
    template <key_value_source Source>
    void meet(const Source& source) {
        const index_t B = source.batch(), G = source.heads();
        if (!open_) start(B, G, source.key_width(), source.value_width());
        const auto same = [&](index_t mine, const char* what, index_t its) {
            require_shape(mine == its, op, "the index has ", what, " ", mine, ", the source ", its);
        };
        same(shape_[0], "batch", B), same(shape_[1], "heads", G);
        same(shape_[2], "key width", source.key_width()), same(shape_[3], "value width", source.value_width());
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g) {
                require_argument(of(b, g).size() <= source.keys(b, g), op, "the index knows ", of(b, g).size(),
                                 " keys of head (", b, ", ", g, "), the source holds ", source.keys(b, g));
                const index_t gone = gone_of(source, b, g), then = gone_[at(b * G + g)];
                require_argument(of(b, g).size() == 0 || gone <= then, op, "head (", b, ", ", g, ") has let go of ",
                                 gone, " keys, of ", then, " when the index read it: clear the index");
            }
        for (index_t t = 0; t < B * G; ++t) gone_[at(t)] = gone_of(source, t / G, t % G);
    }
    /// f(head, b, g), each a task. Policy: on.
    template <class F, class... P>
    void each_head(const F& f, const P&... policies) {
        const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
        const index_t G = shape_[1];
        for_tasks(*context.pool, count(), [&](index_t t, index_t) { f(heads_[at(t)], t / G, t % G); });
    }
    Head& own(index_t b, index_t g) { return heads_[at(b * shape_[1] + g)]; }

private:
    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }
    index_t count() const { return static_cast<index_t>(heads_.size()); }

    /// How many keys a head has let go of.
    template <class Source>
    static index_t gone_of(const Source& source, index_t b, index_t g) {
        if constexpr (requires { source.let_go(b, g); })
            return source.let_go(b, g);
        else if constexpr (requires { source.forgotten(); })
            return source.forgotten();
        else if constexpr (requires { source.end(b); })
            return source.end(b) - source.keys(b, g);
        else
            return 0;
    }
    void start(index_t B, index_t G, index_t D, index_t E) {
        Head empty = prototype_;
        empty.open(D, E);
        heads_.assign(at(B * G), empty);
        gone_.assign(at(B * G), 0);
        shape_ = {B, G, D, E};
        open_ = true;
    }
    static void check_truncate(const Head& head, index_t n) {
        require_argument(0 <= n && n <= head.size(), op, "cannot forget ", n, " keys of ", head.size());
    }

    Head prototype_;
    bool open_ = false;
    extents<4> shape_{};  // B, G, D, E
    std::vector<Head> heads_;
    std::vector<index_t> gone_;  // (B, G): keys the head had let go of when it was last read
};

}  // namespace heed::inline HEED_ABI
