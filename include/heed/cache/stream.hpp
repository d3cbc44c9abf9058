// stream_cache: attention sinks and a window, in memory that does not grow [13] (StreamingLLM, arXiv:2309.17453).
//
// Of t tokens seen it holds the first s and the last w. Key c of the L = min(t, s + w) held stands at position c: masks
// and scores see distances inside the cache, and the newest token stands at L - 1.
// Rotary keys are appended, and queries asked with, rotated by their number among all tokens seen, as without a cache;
// the copies of the sinks that attention reads are turned by the e = t - L tokens forgotten, from the keys as they were
// given: R(i) q . R(e) R(c) k = R(L - 1) q . R(c) k for i = t - 1. One rounding whatever t is; O(s D) per append.
#pragma once

#include <vector>

#include "../policy/rotate.hpp"
#include "row_memory.hpp"
#include "shape.hpp"

namespace heed::inline HEED_ABI {

/// Which tokens a stream holds, and in which slot: a function of the number of tokens seen alone. The ring has `slack`
/// slots more than the window, so that up to `slack` tokens can be dropped again, exactly.
struct residency {
    index_t sinks = 4, window = 1, slack = 0;

    index_t ring() const { return window + slack; }
    index_t slots() const { return sinks + ring(); }
    /// Tokens held, and tokens forgotten, of `seen`.
    index_t keys(index_t seen) const { return std::min(seen, sinks + window); }
    index_t forgotten(index_t seen) const { return seen - keys(seen); }
    /// The token that is key j.
    index_t token(index_t j, index_t seen) const { return j < sinks ? j : j + forgotten(seen); }
    index_t slot(index_t token) const { return token < sinks ? token : sinks + (token - sinks) % ring(); }
    /// The first token the window of `seen` tokens needs from the ring.
    index_t window_begin(index_t seen) const { return std::max(sinks, seen - window); }
    /// One past the last key that follows key j in neighbouring slots.
    index_t run_end(index_t j, index_t seen) const {
        if (j < sinks && forgotten(seen) > 0) return sinks;
        return std::min(keys(seen), j + slots() - slot(token(j, seen)));
    }

    void check(const char* op) const {
        constexpr index_t most = index_t{1} << 40;
        require_argument(0 <= sinks && sinks <= most, op, "sinks is ", sinks, ", must be 0 to ", most);
        require_argument(1 <= window && window <= most, op, "window is ", window, ", must be 1 to ", most);
        require_argument(0 <= slack && slack <= most, op, "slack is ", slack, ", must be 0 to ", most);
    }
};

/// A cache of B sequences of equal length; a key_value_source. Keys are stored as K, values as V, in memory taken when
/// it is made. Every member that throws shape_error or argument_error leaves the cache as it was. Copies are deep.
///
///   rotary(q, q, theta{b}, offset{cache.size()}), rotary(k, k, theta{b}, offset{cache.size()});
///   cache.append(k, v), attention(q, cache, o, causal{});      // n <= window tokens at once, once some are forgotten
/// The n queries of a piece all see the window of its last token: a piece is not its tokens one by one.
template <storage K, storage V = K>
class stream_cache {
public:
    using key_rows = plain_rows<K>;
    using value_rows = plain_rows<V>;
    /// Tokens that can be seen.
    static constexpr index_t most_tokens = index_t{1} << 62;

    /// The rotation is that of the keys, if they are rotary: theta{base}, frequencies{...} or other angles without a
    /// magnitude; half_split{} or interleaved{}; rotated{channels}; defaults as in rotary. None: keys are never turned.
    template <class... P>
    explicit stream_cache(const cache_shape& shape, const residency& where, const P&... rotation)
        : stream_cache(shape, where, turning(shape.D, rotation...)) {}
    stream_cache(const stream_cache& other) : stream_cache(other, other.shape_.B, [](index_t b) { return b; }) {}
    stream_cache(stream_cache&&) noexcept = default;
    stream_cache& operator=(const stream_cache& other) { return *this = stream_cache(other); }
    stream_cache& operator=(stream_cache&&) noexcept = default;

    /// Appends k (B, G, n, D) and v (B, G, n, E), of any storage types. Many tokens at once leave what one at a time
    /// do.
    template <class Q, class W>
    void append(const Q& k, const W& v) {
        append_views(as_view(k), as_view(v));
    }

    /// Drops the last n tokens as if they had never been seen: up to `slack` below the largest size reached, and always
    /// where the sinks alone remain.
    void truncate(index_t n) {
        static constexpr const char* op = "stream_cache::truncate";
        detail::check_truncate(op, seen_, n);
        const index_t left = seen_ - n, needed = where_.window_begin(left);
        require_argument(left <= where_.sinks || needed >= oldest_, op, "cannot drop ", n, " tokens of ", seen_,
                         ": the window then begins with token ", needed, ", the ring with token ", oldest_);
        if (left <= where_.sinks) oldest_ = where_.sinks;
        seen_ = left;
        turn_sinks();
    }

    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new B.
    void reorder(std::span<const index_t> parents) {
        for (index_t parent : parents) detail::check_index("stream_cache::reorder", "sequence", parent, shape_.B);
        *this = stream_cache(*this, static_cast<index_t>(parents.size()),
                             [&](index_t b) { return parents[static_cast<std::size_t>(b)]; });
    }

    /// For what is written for any cache: there is room for any number of tokens.
    void reserve(index_t tokens) { require_argument(tokens >= 0, "stream_cache::reserve", "tokens is ", tokens); }

    /// Tokens seen.
    index_t size() const { return seen_; }
    index_t size(index_t) const { return seen_; }
    /// Tokens seen and forgotten: how far positions in the cache are below the tokens' numbers.
    index_t forgotten() const { return where_.forgotten(seen_); }
    /// Bytes held for keys and values.
    index_t bytes() const { return memory_.bytes(); }

    index_t batch() const { return shape_.B; }
    index_t heads() const { return shape_.G; }
    index_t keys(index_t, index_t) const { return where_.keys(seen_); }
    index_t key_width() const { return shape_.D; }
    index_t value_width() const { return shape_.E; }
    /// Queries of the newest n tokens need the keys of all n: before anything is forgotten any number has them.
    void check_rows(const char* op, index_t n) const {
        require_argument(forgotten() == 0 || n <= where_.window, op, "q has ", n, " rows, the window of the stream is ",
                         where_.window, ": append and attend in pieces");
    }
    /// At most three: the sinks, the older and the newer part of the ring.
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        const index_t plane = b * shape_.G + g, slot = where_.slot(where_.token(j, seen_));
        return {{j, where_.run_end(j, seen_)}, memory_.keys(plane, slot), memory_.values(plane, slot)};
    }
    std::span<const std::byte> memory() const { return memory_.memory(); }

private:
    static constexpr const char* name = "stream_cache";

    struct turn_of_keys {
        std::vector<double> per_pair;
        index_t channels = 0;
        bool interleave = false;
    };

    stream_cache(const cache_shape& shape, const residency& where, turn_of_keys turn)
        : shape_(shape), where_(where), turn_(std::move(turn)), oldest_(where.sinks) {
        shape.check(name);
        where.check(name);
        const index_t originals = turn_.channels > 0 ? where.sinks : 0;  // in the rows behind the slots
        memory_ = memory_type(name, planes(), where.slots() + originals, shape.D, shape.E);
    }
    /// B sequences, sequence b a copy of sequence parent(b) of `from`.
    template <class Parent>
    stream_cache(const stream_cache& from, index_t B, const Parent& parent)
        : stream_cache({B, from.shape_.G, from.shape_.D, from.shape_.E}, from.where_, from.turn_) {
        seen_ = from.seen_, oldest_ = from.oldest_, turned_ = from.turned_;
        for (index_t plane = 0; plane < planes(); ++plane)
            memory_.copy(plane, 0, from.memory_, parent(plane / shape_.G) * shape_.G + plane % shape_.G, 0, rows());
    }

    template <class... P>
    static turn_of_keys turning(index_t D, const P&... policies) {
        static_assert(((has_role<P, roles::pairing> || has_role<P, roles::width> || has_role<P, roles::angles>)&&...),
                      "heed: an argument is not a rotation of keys");
        using detail::pick;
        const auto angles = pick<roles::angles>(theta{10000}, policies...);
        static_assert(
            requires { angles.frequency(0, 2); } && !requires { angles.magnitude(0, 0, 2); },
            "heed: a stream turns keys by position times frequency");
        const index_t channels = sizeof...(P) > 0 ? pick<roles::width>(rotated{D}, policies...).channels : 0;
        require_argument(0 <= channels && channels <= D, name, "width is ", channels, ", keys have ", D, " channels");
        require_argument(channels % 2 == 0, name, "width ", channels, " is odd, channels turn in pairs");
        angles.check(name, channels / 2);
        turn_of_keys turn{
            {}, channels, std::is_same_v<decltype(pick<roles::pairing>(half_split{}, policies...)), interleaved>};
        for (index_t p = 0; p < channels / 2; ++p) turn.per_pair.push_back(angles.frequency(p, channels));
        return turn;
    }

    index_t planes() const { return shape_.B * shape_.G; }
    index_t rows() const { return where_.slots() + (turn_.channels > 0 ? where_.sinks : 0); }

    template <class Q, class W>
    void append_views(const view<Q>& k, const view<W>& v) {
        static constexpr const char* op = "stream_cache::append";
        const index_t n = detail::check_append(op, shape_, shape_.B, k, v);
        detail::check_apart(op, memory(), k, "k");
        detail::check_apart(op, memory(), v, "v");
        require_argument(n <= most_tokens - seen_, op, n, " tokens after ", seen_, " are more than ", most_tokens);
        const index_t end = seen_ + n;
        const range sinks{seen_, std::min(end, where_.sinks)};
        const range ring{std::max({seen_, where_.sinks, end - where_.ring()}), end};  // older ones would be overwritten
        for (index_t plane = 0; plane < planes(); ++plane) {
            const auto write = [&](range tokens, index_t slot) {
                if (tokens.empty()) return;
                const range from{tokens.first - seen_, tokens.last - seen_};
                const auto rows_of = [&](const auto& x) {
                    return slice(detail::head_of(x, plane / shape_.G, plane % shape_.G), 0, from);
                };
                memory_.write(plane, slot, rows_of(k), rows_of(v));
            };
            write(sinks, sinks.first);
            if (turn_.channels > 0) write(sinks, where_.slots() + sinks.first);
            for (index_t token = ring.first; token < end;) {
                const index_t slot = where_.slot(token), last = std::min(end, token + where_.slots() - slot);
                write({token, last}, slot);
                token = last;
            }
        }
        seen_ = end;
        oldest_ = std::max(oldest_, end - where_.ring());
        turn_sinks();
    }

    /// Brings the sinks' keys to the shift of now, from the originals.
    void turn_sinks() {
        const index_t shift = forgotten(), count = std::min(seen_, where_.sinks), slots = where_.slots();
        if (turn_.channels == 0 || turned_ == shift) return;
        turned_ = shift;
        if (shift == 0) {
            for (index_t plane = 0; plane < planes(); ++plane) memory_.copy(plane, 0, memory_, plane, slots, count);
            return;
        }
        // Sinks as heads of one token: they share their angles.
        const view<const K> given = memory_.keys(planes(), {slots, slots + count});
        const view<K> turned = memory_.keys(planes(), {0, count});
        const frequencies angles(turn_.per_pair);
        const detail::positions_in_order at{shift};
        using T = accumulator<K>;
        if (turn_.interleave)
            detail::rotate_tokens<true, default_arch, T>(given, turned, turn_.channels, angles, at, {0, 1});
        else
            detail::rotate_tokens<false, default_arch, T>(given, turned, turn_.channels, angles, at, {0, 1});
    }

    using memory_type = detail::row_memory<K, V>;
    cache_shape shape_;
    residency where_;
    turn_of_keys turn_;
    memory_type memory_;
    index_t seen_ = 0;
    index_t oldest_;      // token of the ring, the first that no later one has overwritten
    index_t turned_ = 0;  // how far the sinks are turned
};

}  // namespace heed::inline HEED_ABI
