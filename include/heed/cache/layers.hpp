// Caches shared across layers [18]: layer l reads the keys and values of layer producer(l) <= l, which alone appends.
//
//   producer(l) = s floor(l / s), or any non-decreasing map of which every value is its own producer
// Cost: the bytes of as many caches as there are producers, ceil(L / s).
// Source: cross-layer attention, arXiv:2405.12981.
// Traps: a layer runs after its producer has appended the token; keys are rotated once, by the producer.
#pragma once

#include <vector>

#include "shape.hpp"

namespace heed::inline HEED_ABI {

/// The producers of `layers` layers of which every s successive ones share a cache, for layer_caches.
inline std::vector<index_t> shared_by(index_t s, index_t layers) {
    require_argument(s >= 1, "shared_by", "s is ", s, ", the least is 1");
    require_argument(layers >= 0, "shared_by", "layers is ", layers);
    std::vector<index_t> producers(static_cast<std::size_t>(layers));
    for (index_t l = 0; l < layers; ++l) producers[static_cast<std::size_t>(l)] = l / s * s;
    return producers;
}

/// The caches of a model's layers; those that are not producers have none of their own.
template <class Cache>
class layer_caches {
public:
    /// producers[l] is the layer whose cache layer l reads; make(l) builds the cache of each that is one.
    template <class Make>
    layer_caches(std::vector<index_t> producers, const Make& make) : producers_(std::move(producers)) {
        check();
        for (index_t l = 0; l < layers(); ++l) {
            if (producer(l) == l) caches_.push_back(make(l));
            places_.push_back(caches_.size() - 1);
        }
    }

    index_t layers() const { return static_cast<index_t>(producers_.size()); }
    index_t producer(index_t l) const { return producers_[static_cast<std::size_t>(l)]; }

    /// The cache that layer l reads.
    const Cache& cache_of(index_t l) const {
        detail::check_index("layer_caches::cache_of", "layer", l, layers());
        return caches_[place(l)];
    }
    /// The cache that layer l appends to; argument_error if l is not a producer.
    Cache& produced_by(index_t l) {
        static constexpr const char* op = "layer_caches::produced_by";
        detail::check_index(op, "layer", l, layers());
        require_argument(producer(l) == l, op, "layer ", l, " reads the cache of layer ", producer(l));
        return caches_[place(l)];
    }
    /// Calls f(cache) for every cache, for truncate, reorder and the like.
    template <class F>
    void each(const F& f) {
        for (Cache& cache : caches_) f(cache);
    }
    /// Bytes held by all caches.
    index_t bytes() const {
        index_t sum = 0;
        for (const Cache& cache : caches_) sum += cache.bytes();
        return sum;
    }

private:
    std::size_t place(index_t l) const { return places_[static_cast<std::size_t>(l)]; }

    void check() const {
        static constexpr const char* op = "layer_caches";
        for (index_t l = 0; l < layers(); ++l) {
            const index_t p = producer(l);
            require_argument(0 <= p && p <= l, op, "layer ", l, " cannot read the cache of layer ", p);
            require_argument(l == 0 || p >= producer(l - 1), op, "the producer of layer ", l, " is ", p,
                             ", that of layer ", l - 1, " is ", l > 0 ? producer(l - 1) : 0);
            require_argument(producer(p) == p, op, "layer ", l, " reads the cache of layer ", p,
                             ", which reads that of layer ", producer(p));
        }
    }

    std::vector<index_t> producers_;
    std::vector<Cache> caches_;
    std::vector<std::size_t> places_;  // of each layer's cache in caches_
};

template <class Make>
layer_caches(std::vector<index_t>, const Make&) -> layer_caches<std::invoke_result_t<const Make&, index_t>>;

}  // namespace heed::inline HEED_ABI
