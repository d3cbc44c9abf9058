// Attention that waits (Attendre [22]): keys live in a memory of fixed size, and queries attend `delay` tokens late, so
// that each also sees what comes after it.
//
//   per chunk: insert its keys, evict what is over capacity; queue its queries; those that are due attend to the memory
// FIFO memory of C tokens, chunks of c: query chunk a sees the key chunks a + d - C / c + 1 .. a + d, d = delay / c.
// Delay 0 is attention to a memory, causal by chunks. Every query is answered once, at its own place.
#pragma once

#include "../cache/contiguous.hpp"
#include "../cache/evict_mass.hpp"
#include "../cache/evict_memory.hpp"
#include "../cache/per_head.hpp"
#include "../cache/waiting_queries.hpp"
#include "../engine/attention.hpp"

namespace heed::inline HEED_ABI {

template <storage S>
class attendre {
public:
    /// Keys and values of `shape`, at most `capacity` tokens; H query heads, whose queries wait until `delay` more have
    /// come. A key was attended if it is among the `top` of a query; with top 0 all are, by their weight.
    attendre(const cache_shape& shape, index_t H, index_t capacity, index_t delay,
             leaves_first rule = leaves_first::least_recently_attended, index_t top = 0)
        : cache_(shape, capacity),
          waiting_(shape.B, H, shape.D, delay),
          heads_(shape.B, shape.G, attended_keys(capacity, rule)),
          capacity_(capacity),
          top_(top),
          H_(H) {
        require_argument(top >= 0, op, "top is ", top);
    }

    /// The next chunk, q (B, H, c, D), k (B, G, c, D), v (B, G, c, E), c <= capacity. Rows of o (B, H, tokens, E), the
    /// output of the whole input, are written as they fall due; returns which. Policies see queries and keys where they
    /// stand in the input; what they refuse, they refuse after the chunk is in memory. All else is checked before.
    template <class A = default_arch, class Q, class K, class V, class O, class... Policies>
    range step(const Q& q, const K& k, const V& v, O&& o, const Policies&... policies) {
        const auto from = as_view(q);
        const index_t c = from.shape[2], D = cache_.key_width();
        require_shape(from.shape == extents<4>{cache_.batch(), H_, as_view(k).shape[2], D}, op, "q is (", from.shape[0],
                      ", ", from.shape[1], ", ", c, ", ", from.shape[3], "), expected (", cache_.batch(), ", ", H_,
                      ", ", as_view(k).shape[2], ", ", D, ")");
        require_argument(c <= capacity_, op, "a chunk of ", c, " tokens, the capacity is ", capacity_);
        check_output(as_view(o), waiting_.due(c));
        cache_.append(k, v);
        heads_.each([&](attended_keys& keys, index_t b, index_t g) { cache_.keep(b, g, keys.insert(c)); });
        waiting_.push(from);
        return attend<A>(waiting_.due(), as_view(o), policies...);
    }

    /// The end of the input: all that still wait attend.
    template <class A = default_arch, class O, class... Policies>
    range flush(O&& o, const Policies&... policies) {
        check_output(as_view(o), waiting_.waiting());
        return attend<A>(waiting_.waiting(), as_view(o), policies...);
    }

    /// The last n tokens have never come: what they made the memory let go of does not come back, the rows of o written
    /// for them are written again, those of earlier queries are not.
    void truncate(index_t n) {
        waiting_.drop_last(n);
        cache_.truncate(n);
        heads_.each([&](attended_keys& keys, index_t b, index_t g) { keys.cut(cache_.keys(b, g)); });
    }

    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new B.
    void reorder(std::span<const index_t> parents) {
        cache_.reorder(parents);
        waiting_.reorder(parents);
        heads_.reorder(parents);
    }

    const contiguous_cache<S>& memory() const { return cache_; }

private:
    static constexpr const char* op = "attendre";

    template <class O>
    void check_output(const view<O>& o, index_t n) const {
        const index_t end = waiting_.first() + n;
        require_shape(
            o.shape[0] == cache_.batch() && o.shape[1] == H_ && o.shape[2] >= end && o.shape[3] == cache_.value_width(),
            op, "o is (", o.shape[0], ", ", o.shape[1], ", ", o.shape[2], ", ", o.shape[3], "), expected (",
            cache_.batch(), ", ", H_, ", at least ", end, ", ", cache_.value_width(), ")");
    }

    template <class A, class O, class... Policies>
    range attend(index_t n, const view<O>& o, const Policies&... policies) {
        const range due{waiting_.first(), waiting_.first() + n};
        if (n == 0) return due;
        const auto q = waiting_.front(n);
        const auto to = slice(o, 2, due);
        if (top_ > 0)
            attend_top<A>(q, to, offset{due.first}, policies...);
        else
            attend_all<A>(q, to, offset{due.first}, policies...);
        waiting_.pop(n);
        return due;
    }

    template <class A, class O, class... Policies>
    void attend_all(const view<const S>& q, const view<O>& o, const Policies&... policies) {
        const index_t B = cache_.batch(), G = cache_.heads();
        index_t M = 0;  // keys of the head that holds the most
        heads_.each([&](const attended_keys& keys, index_t, index_t) { M = std::max(M, keys.size()); });
        std::vector<float> masses(static_cast<std::size_t>(B * H_ * M)), sums(static_cast<std::size_t>(B * G * M));
        attention<A>(q, cache_, o, policies..., key_mass{dense(masses.data(), {B, H_, M})});
        group_mass(dense(masses.data(), {B, H_, M}), dense(sums.data(), {B, G, M}));
        heads_.each([&](attended_keys& keys, index_t b, index_t g) {
            const float* const mass = sums.data() + (b * G + g) * M;
            keys.attend_mass(std::span<const float>(mass, static_cast<std::size_t>(keys.size())));
        });
    }

    template <class A, class O, class... Policies>
    void attend_top(const view<const S>& q, const view<O>& o, const Policies&... policies) {
        const index_t B = cache_.batch(), n = q.shape[2], group = H_ / std::max<index_t>(1, cache_.heads());
        std::vector<index_t> best(static_cast<std::size_t>(B * H_ * n * top_));
        std::vector<float> logits(best.size());
        attention<A>(q, cache_, o, policies...,
                     top_keys{dense(best.data(), {B, H_, n, top_}), dense(logits.data(), {B, H_, n, top_})});
        heads_.each([&](attended_keys& keys, index_t b, index_t g) {
            const index_t of_group = group * n * top_;
            keys.attend({best.data() + (b * H_ + g * group) * n * top_, static_cast<std::size_t>(of_group)});
        });
    }

    contiguous_cache<S> cache_;
    waiting_queries<S> waiting_;
    per_head<attended_keys> heads_;
    index_t capacity_, top_, H_;
};

}  // namespace heed::inline HEED_ABI
