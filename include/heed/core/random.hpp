// Random numbers by counter: number i of a seed is a function of (seed, i), in any order and on any thread.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds of two 32 x 32 ->
// 64 bit products, key bumped by a Weyl sequence; tests/core/random_test.cpp holds the authors' known answers.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "config.hpp"

namespace heed::inline HEED_ABI {

/// The block function: 128 random bits of a 128-bit counter under a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
        key[0] += 0x9E3779B9;  // the golden ratio
        key[1] += 0xBB67AE85;  // sqrt(3) - 1
    }
    return counter;
}

/// Streams of random numbers, each addressed by its index.
class counter_random {
public:
    constexpr explicit counter_random(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

    /// 64 random bits.
    constexpr std::uint64_t bits(std::uint64_t i) const {
        const auto r = block(i);
        return std::uint64_t{r[1]} << 32 | r[0];
    }
    /// Uniform in [0, 1), 53 bits.
    constexpr double uniform(std::uint64_t i) const { return static_cast<double>(bits(i) >> 11) * 0x1p-53; }
    /// Uniform in [first, last); last > first. The bias is below (last - first) / 2^64.
    constexpr index_t integer(std::uint64_t i, index_t first, index_t last) const {
        const auto span = static_cast<std::uint64_t>(last) - static_cast<std::uint64_t>(first);
        const auto r = block(i);  // the high half of bits * span, by two 32-bit digits
        const std::uint64_t low = (r[0] * (span & 0xffffffff)) >> 32;
        const std::uint64_t middle = r[1] * (span & 0xffffffff) + low;
        const std::uint64_t cross = r[0] * (span >> 32) + (middle & 0xffffffff);
        const std::uint64_t step = r[1] * (span >> 32) + (middle >> 32) + (cross >> 32);
        return static_cast<index_t>(static_cast<std::uint64_t>(first) + step);
    }
    /// Normal with mean 0 and variance 1 (Box-Muller).
    double normal(std::uint64_t i) const {
        const auto r = block(i);
        const double u = (static_cast<double>(std::uint64_t{r[1]} << 32 | r[0]) + 0.5) * 0x1p-64;  // never 0
        const double angle = static_cast<double>(std::uint64_t{r[3]} << 32 | r[2]) * 0x1p-63 * std::numbers::pi;
        return std::sqrt(-2 * std::log(u)) * std::cos(angle);
    }

private:
    constexpr std::array<std::uint32_t, 4> block(std::uint64_t i) const {
        return philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
                       static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                      {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
    }
    std::uint64_t seed_, stream_;
};

}  // namespace heed::inline HEED_ABI
