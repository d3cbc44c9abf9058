// per_head: something of every head of a cache, (B, G), which follows its sequences when they are reordered.
#pragma once

#include <span>
#include <vector>

#include "../core/range.hpp"

namespace heed::inline HEED_ABI {

template <class X>
class per_head {
public:
    per_head(index_t B, index_t G, const X& x = {}) : G_(G), all_(static_cast<std::size_t>(B * G), x) {}

    index_t size() const { return static_cast<index_t>(all_.size()); }
    X& operator()(index_t b, index_t g) { return all_[at(b, g)]; }
    const X& operator()(index_t b, index_t g) const { return all_[at(b, g)]; }
    /// Calls f(x, b, g) for every head.
    template <class F>
    void each(const F& f) {
        for (index_t i = 0; i < size(); ++i) f(all_[static_cast<std::size_t>(i)], i / G_, i % G_);
    }
    template <class F>
    void each(const F& f) const {
        for (index_t i = 0; i < size(); ++i) f(all_[static_cast<std::size_t>(i)], i / G_, i % G_);
    }
    /// Sequence b becomes a copy of sequence parents[b].
    void reorder(std::span<const index_t> parents) {
        std::vector<X> next;
        for (index_t parent : parents)
            for (index_t g = 0; g < G_; ++g) next.push_back((*this)(parent, g));
        all_ = std::move(next);
    }

private:
    std::size_t at(index_t b, index_t g) const { return static_cast<std::size_t>(b * G_ + g); }
    index_t G_;
    std::vector<X> all_;
};

}  // namespace heed::inline HEED_ABI
