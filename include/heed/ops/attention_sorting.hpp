// Attention sorting [78]: documents the answer attends to move to the end of the prompt, next to the question.
//
//   repeat: read the prompt; mass_d = mean over layers and heads of the last row's weight on document d
//           sort documents by mass ascending (stable); stop when the order stays
// The masses are those of segment_attention, averaged by mean_mass. Cost: one prefill a round.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "../core/error.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// The numbers of the values, sorted by before(value a, value b), ties by number.
template <class Before>
std::vector<index_t> order_of(std::span<const double> values, const char* op, const char* what, const Before& before) {
    for (double x : values) require_argument(std::isfinite(x), op, what, " is ", x);
    std::vector<index_t> order(values.size());
    std::iota(order.begin(), order.end(), index_t(0));
    std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) {
        return before(values[static_cast<std::size_t>(a)], values[static_cast<std::size_t>(b)]);
    });
    return order;
}

}  // namespace detail

/// The order to generate with: document order[p] stands at place p. read(order) reads the prompt in an order and
/// returns the masses by place, something a span of double is made of.
template <class Read>
std::vector<index_t> attention_sorting(index_t documents, index_t rounds, Read&& read) {
    static constexpr const char* op = "attention_sorting";
    require_argument(documents >= 0, op, "there are ", documents, " documents");
    require_argument(rounds >= 0, op, "there are ", rounds, " rounds");
    std::vector<index_t> order(static_cast<std::size_t>(documents));
    std::iota(order.begin(), order.end(), index_t(0));
    for (index_t round = 0; round < rounds; ++round) {
        const auto& masses = read(std::span<const index_t>(order));
        const std::span<const double> mass(masses);
        require_shape(mass.size() == order.size(), op, "there are ", mass.size(), " masses and ", documents,
                      " documents");
        std::vector<index_t> sorted;
        for (index_t place : detail::order_of(mass, op, "a mass", std::less<>{}))
            sorted.push_back(order[static_cast<std::size_t>(place)]);
        if (sorted == order) break;
        order = sorted;
    }
    return order;
}

}  // namespace heed::inline HEED_ABI
