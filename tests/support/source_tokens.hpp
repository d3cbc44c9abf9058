// What a source holds, token by token, for comparison with a plain vector; and random operands of append.
#pragma once

#include <gtest/gtest.h>

#include <heed/policy/source.hpp>

#include "random.hpp"

namespace test {

/// A key of one head: where it stands, and its numbers.
struct token {
    index_t position = 0;
    std::vector<double> k, v;
    bool operator==(const token&) const = default;
};
using token_list = std::vector<token>;

/// The row as D numbers; it must lie in the source's memory.
template <class S, class Rows>
std::vector<double> numbers_of(const S& source, const Rows& rows, index_t row, index_t width) {
    const auto* address = reinterpret_cast<const std::byte*>(rows.data + row * rows.stride);
    const auto memory = source.memory();
    EXPECT_TRUE(width == 0 || (memory.data() <= address && address < memory.data() + memory.size()));
    std::vector<double> numbers;
    for (index_t d = 0; d < width; ++d) numbers.push_back(rows.number(row, d));
    return numbers;
}

/// Head g of sequence b, read run by run; and the rules for runs and positions.
template <key_value_source S>
token_list tokens_of(const S& source, index_t b, index_t g) {
    const index_t keys = source.keys(b, g);
    const index_t* positions = nullptr;
    if constexpr (requires { source.positions(b, g); }) positions = source.positions(b, g);
    token_list tokens;
    for (index_t j = 0; j < keys;) {
        const auto run = source.run(b, g, j);
        if (run.keys.first != j || run.keys.last <= j || run.keys.last > keys) {
            ADD_FAILURE() << "run " << run.keys.first << ", " << run.keys.last << " from key " << j << " of " << keys;
            return tokens;
        }
        for (; j < run.keys.last; ++j) {
            const index_t row = j - run.keys.first;
            const auto inner = source.run(b, g, j);
            EXPECT_EQ(inner.k.data, run.k.data + row * run.k.stride);
            EXPECT_EQ(inner.v.data, run.v.data + row * run.v.stride);
            EXPECT_GE(inner.keys.last, run.keys.last);
            tokens.push_back({positions ? positions[j] : j, numbers_of(source, run.k, row, source.key_width()),
                              numbers_of(source, run.v, row, source.value_width())});
        }
    }
    for (std::size_t i = 1; i < tokens.size(); ++i) EXPECT_LT(tokens[i - 1].position, tokens[i].position);
    if constexpr (requires { source.end(b); })
        if (!tokens.empty()) EXPECT_LT(tokens.back().position, source.end(b));
    return tokens;
}

/// Draws for a random sequence of operations.
class dice {
public:
    explicit dice(std::uint64_t seed) : draw_(seed) {}
    /// One of 0, ..., n - 1.
    index_t below(index_t n) { return static_cast<index_t>(draw_.uniform(count_++) * static_cast<double>(n)); }
    std::uint64_t seed() { return count_++; }

private:
    counter_random draw_;
    std::uint64_t count_ = 0;
};

inline layout any_layout(dice& d) {
    const layout all[] = {layout::heads(), layout::tokens(), layout::padded(), layout::strided()};
    return all[d.below(4)];
}

/// Keys or values to append, of storage T, and what they are once stored as S.
template <class T>
struct operand {
    tensor<T> x;
    operand(const extents<4>& shape, dice& d) : x(normal<T>(shape, d.seed(), 1, any_layout(d))) {}

    template <class S>
    std::vector<double> stored(index_t b, index_t g, index_t n) const {
        std::vector<double> row;
        for (index_t d = 0; d < x.shape()[3]; ++d)
            row.push_back(static_cast<double>(static_cast<S>(static_cast<accumulator<T, S>>(x(b, g, n, d)))));
        return row;
    }
};

/// Calls f(T{}) with one of the storage types.
template <class F>
void with_any_storage(dice& d, const F& f) {
    switch (d.below(4)) {
        case 0:
            return f(float{});
        case 1:
            return f(double{});
        case 2:
            return f(bf16{});
        default:
            return f(f16{});
    }
}

}  // namespace test
