// The laws every mask obeys, by brute force over small extents: next, full, bits, keys and count against allows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include <heed/policy/area.hpp>

#include "any_mask.hpp"

namespace test {

using namespace heed;

/// How exact a mask is expected to be, beyond being right.
enum class exactness { right, exact_next, exact };  // exact: full is "yes" wherever it could be, too

struct scene {
    index_t N, M, shift;
    index_t B = 1, H = 1;
};

/// next, full and bits against allows. Behind any_mask, so that it is compiled once, not once a mask.
inline void tile_laws(const any_mask& mask, const scene& at, exactness want) {
    std::mt19937 random(static_cast<unsigned>(at.N * 1000 + at.M));
    const auto below = [&](index_t n) { return n > 0 ? static_cast<index_t>(random() % static_cast<unsigned>(n)) : 0; };
    for (index_t b = 0; b < at.B; ++b)
        for (index_t h = 0; h < at.H; ++h) {
            const auto picture = draw(mask, at.N, at.M, at.shift, b, h);
            const auto seen = [&](index_t n, index_t j) {
                return picture[static_cast<std::size_t>(n)][static_cast<std::size_t>(j)];
            };
            for (int trial = 0; trial < 60 && at.N > 0; ++trial) {
                const index_t first = below(at.N), last = first + 1 + below(std::min<index_t>(48, at.N - first));
                const rows r{b, h, first + at.shift, last + at.shift, at.shift};
                std::vector<bool> any(static_cast<std::size_t>(at.M)), all(static_cast<std::size_t>(at.M), true);
                for (index_t j = 0; j < at.M; ++j)
                    for (index_t n = first; n < last; ++n) {
                        any[j] = any[j] || seen(n, j);
                        all[j] = all[j] && seen(n, j);
                    }
                index_t nearest = no_key;
                for (index_t j = at.M; j-- > 0;) {
                    if (any[j]) nearest = j;
                    const index_t said = heed::detail::next(mask, r, j);
                    ASSERT_GE(said, j);
                    ASSERT_TRUE(said <= nearest || (nearest == no_key && said >= j))
                        << "too late: rows " << first << " " << last << " from " << j;
                    if (want != exactness::right)
                        ASSERT_TRUE(said == nearest || (nearest == no_key && said >= at.M))
                            << "rows " << first << " " << last << " from " << j << " said " << said << " is " << nearest;
                }
                for (int tile = 0; tile < 20 && at.M > 0; ++tile) {
                    const index_t from = below(at.M), size = 1 + below(std::min<index_t>(tile % 2 ? 8 : 40, at.M - from));
                    bool full = true;
                    for (index_t j = from; j < from + size; ++j) full = full && all[j];
                    const bool said = heed::detail::full(mask, r, {from, from + size});
                    if (said) ASSERT_TRUE(full) << "rows " << first << " " << last << " keys " << from << "+" << size;
                    if (want == exactness::exact)
                        ASSERT_EQ(said, full) << "rows " << first << " " << last << " keys " << from << "+" << size;
                    rows part = r;
                    part.last = std::min(r.last, r.first + 16);
                    const int n = static_cast<int>(std::min<index_t>(8, size));
                    const lane_bits bits = heed::detail::bits(mask, part, from, n);
                    for (int c = 0; c < 8; ++c)
                        for (index_t l = 0; l < 16; ++l)
                            ASSERT_EQ(bits.key[c] >> l & 1, c < n && l < part.size() && seen(first + l, from + c))
                                << "rows " << first << " lane " << l << " key " << from + c;
                }
            }
        }
}

/// All laws of one mask on one scene.
template <class Mask>
void obeys_laws(const Mask& mask, const scene& at, exactness want, const std::string& name) {
    SCOPED_TRACE(name + " N " + std::to_string(at.N) + " M " + std::to_string(at.M) + " shift " +
                 std::to_string(at.shift));
    tile_laws(mask, at, want);
    index_t pairs = 0;
    for (index_t b = 0; b < at.B; ++b)
        for (index_t h = 0; h < at.H; ++h) {
            const auto picture = draw(mask, at.N, at.M, at.shift, b, h);
            for (index_t n = 0; n < at.N; ++n) {
                const auto& row = picture[static_cast<std::size_t>(n)];
                const index_t sum = std::count(row.begin(), row.end(), true);
                pairs += sum;
                const where w{b, h, n, n + at.shift, 0};
                ASSERT_EQ(count(mask, w, at.M), sum) << "row " << n;
                if constexpr (heed::detail::interval_mask<Mask>) {
                    const range k = mask.keys(w) & range{0, at.M};
                    for (index_t j = 0; j < at.M; ++j)
                        ASSERT_EQ(k.contains(j), row[static_cast<std::size_t>(j)]) << n << " " << j;
                }
            }
        }
    EXPECT_EQ(area(mask, at.B, at.H, at.N, at.M, at.shift), pairs);
}

/// The laws on a spread of extents and offsets.
template <class Mask>
void obeys_laws(const Mask& mask, exactness want, const std::string& name) {
    for (const scene& at : {scene{1, 1, 0}, scene{1, 60, 59}, scene{40, 40, 0}, scene{67, 67, 0}, scene{50, 90, 40},
                            scene{90, 50, -40}, scene{33, 70, 0}, scene{7, 0, -7}, scene{20, 130, 50}})
        obeys_laws(mask, at, want, name);
}

/// Two masks with the same pairs.
template <class A, class B>
void same_set(const A& a, const B& b, index_t N, index_t M, const std::string& name) {
    EXPECT_EQ(draw(a, N, M), draw(b, N, M)) << name;
}

}  // namespace test
