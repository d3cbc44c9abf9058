// Tokens by name: every token is a number, from which its keys and values follow, so that a cache is told by a list.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <heed/policy/source.hpp>

#include "tensor.hpp"

namespace test {

enum class side { key, value };

/// What stands at (b, g, d) of a token's key or value: a small integer, which every storage type holds.
inline double token_number(std::uint64_t token, side of, index_t b, index_t g, index_t d) {
    const auto at = static_cast<std::uint64_t>(b * 1000003 + g * 10007 + d * 101 + (of == side::key ? 0 : 57));
    const std::uint64_t mixed = (token + 1) * 0x9E3779B97F4A7C15u + at * 0xD1B54A32D192ED03u;
    return std::floor(static_cast<double>((mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9u >> 32) * 0x1p-32 * 250 - 125);
}

/// The keys or values of some tokens, (B, G, n, width).
template <class T>
tensor<T> token_rows(const std::vector<std::uint64_t>& tokens, side of, index_t B, index_t G, index_t width,
                     const layout& l = {}) {
    tensor<T> out({B, G, static_cast<index_t>(tokens.size()), width}, l);
    out.each([&](index_t b, index_t g, index_t n, index_t d) {
        out(b, g, n, d) = static_cast<T>(token_number(tokens[static_cast<std::size_t>(n)], of, b, g, d));
    });
    return out;
}

/// Whether every head of a source holds these tokens, in runs that cover each of them once.
template <key_value_source S>
testing::AssertionResult holds(const S& source, const std::vector<std::uint64_t>& tokens) {
    const auto n = static_cast<index_t>(tokens.size());
    for (index_t b = 0; b < source.batch(); ++b)
        for (index_t g = 0; g < source.heads(); ++g) {
            if (source.keys(b, g) != n)
                return testing::AssertionFailure() << "holds " << source.keys(b, g) << " tokens, not " << n;
            for (index_t j = 0; j < n;) {
                const auto run = source.run(b, g, j);
                if (run.keys.first > j || run.keys.last <= j || run.keys.last > n)
                    return testing::AssertionFailure() << "the run from " << j << " is [" << run.keys.first << ", "
                                                       << run.keys.last << ") of " << n;
                for (; j < run.keys.last; ++j) {
                    const std::uint64_t token = tokens[static_cast<std::size_t>(j)];
                    const auto same = [&](const auto& rows, side of, index_t width) {
                        for (index_t d = 0; d < width; ++d)
                            if (rows.number(j - run.keys.first, d) != token_number(token, of, b, g, d)) return false;
                        return true;
                    };
                    if (!same(run.k, side::key, source.key_width()) || !same(run.v, side::value, source.value_width()))
                        return testing::AssertionFailure()
                               << "other numbers at (" << b << ", " << g << ", " << j << ")";
                }
            }
        }
    return testing::AssertionSuccess();
}

}  // namespace test
