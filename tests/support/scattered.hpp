// A source that lies in memory as unevenly as the interface permits: short runs of differing lengths, in any order, with
// lengths per head, and, if asked for, positions that leave gaps.
#pragma once

#include <algorithm>
#include <heed/policy/source.hpp>
#include <vector>

#include "tensor.hpp"

namespace test {

using namespace heed;

template <class K, class V = K>
class scattered {
public:
    using key_rows = plain_rows<K>;
    using value_rows = plain_rows<V>;

    /// lengths: keys of head (b, g), at most M; runs hold 1 to `longest` keys, stored backwards.
    scattered(const tensor<K>& k, const tensor<V>& v, std::vector<index_t> lengths, index_t longest)
        : shape_(k.shape()), E_(v.shape()[3]), lengths_(std::move(lengths)), longest_(longest) {
        const auto [B, G, M, D] = shape_;
        keys_.resize(static_cast<std::size_t>(B * G * M * D));
        values_.resize(static_cast<std::size_t>(B * G * M * E_));
        for (index_t b = 0; b < B; ++b)
            for (index_t g = 0; g < G; ++g)
                for (index_t j = 0; j < M; ++j) {
                    for (index_t d = 0; d < D; ++d) keys_[at(b, g, j, D) + static_cast<std::size_t>(d)] = k(b, g, j, d);
                    for (index_t e = 0; e < E_; ++e) values_[at(b, g, j, E_) + static_cast<std::size_t>(e)] = v(b, g, j, e);
                }
    }

    index_t batch() const { return shape_[0]; }
    index_t heads() const { return shape_[1]; }
    index_t keys(index_t b, index_t g) const { return lengths_[static_cast<std::size_t>(b * shape_[1] + g)]; }
    index_t key_width() const { return shape_[3]; }
    index_t value_width() const { return E_; }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        const index_t D = shape_[3], last = std::min({j + length(j), keys(b, g)});
        return {{j, last}, {keys_.data() + at(b, g, j, D), D}, {values_.data() + at(b, g, j, E_), E_}};
    }

protected:
    /// How many keys lie evenly from key j on: runs start at multiples of `longest` and break once inside.
    index_t length(index_t j) const {
        const index_t inside = j % longest_, broken = longest_ / 3 + 1;
        return inside < broken ? broken - inside : longest_ - inside;
    }
    /// Runs stand in reverse order.
    std::size_t at(index_t b, index_t g, index_t j, index_t width) const {
        const index_t M = shape_[2], block = j / longest_, first = block * longest_, last = std::min(first + longest_, M);
        const index_t row = M - last + (j - first);
        return static_cast<std::size_t>(((b * shape_[1] + g) * M + row) * width);
    }

    extents<4> shape_;
    index_t E_;
    std::vector<index_t> lengths_;
    index_t longest_;
    std::vector<K> keys_;
    std::vector<V> values_;
};

/// The same with key j at position places[j], the newest token at end - 1.
template <class K, class V = K>
class placed_scattered : public scattered<K, V> {
public:
    placed_scattered(const tensor<K>& k, const tensor<V>& v, std::vector<index_t> lengths, index_t longest,
                     std::vector<index_t> places, index_t end)
        : scattered<K, V>(k, v, std::move(lengths), longest), places_(std::move(places)), end_(end) {}
    const index_t* positions(index_t, index_t) const { return places_.data(); }
    index_t end(index_t) const { return end_; }

private:
    std::vector<index_t> places_;
    index_t end_;
};

}  // namespace test
