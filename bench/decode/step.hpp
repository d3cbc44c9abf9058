// One step of decoding: a query of each of H heads against M tokens of G heads, and what is exact.
#pragma once

#include <heed/heed.hpp>

#include "../support/measurement.hpp"

namespace bench {

using namespace heed;

struct decode_step {
    static constexpr index_t H = 32, G = 8, D = 128;
    index_t M = 0;
    int threads = 1;

    std::string name() const;  // d:128/m:M/h:32/g:8/threads:T
};

/// M random tokens in float with the habits of language models: the first four draw the queries and have small values,
/// the last 250 and one of a thousand others draw them too (StreamingLLM, arXiv:2309.17453), and a channel in 32 of the
/// keys has outliers (KIVI, arXiv:2402.02750). What draws is in the upper half of the channels.
class prompt {
    aligned_vector<float> memory_;

public:
    view<float> q, k, v;        // (1, H, 1, D), (1, G, M, D), (1, G, M, D)
    std::vector<double> exact;  // (H, D)

    explicit prompt(index_t M);
};
/// Those of a length; rivals share them.
std::shared_ptr<const prompt> prompt_of(index_t M);

/// The definition, in double: softmax(q k^T / sqrt D) v, (H, D).
std::vector<double> exactly(const view<float>& q, const view<float>& k, const view<float>& v);

/// Where a step is written to, NaN at first; (1, H, 1, D).
class answer {
public:
    answer()
        : memory_(static_cast<std::size_t>(decode_step::H * decode_step::D), std::numeric_limits<float>::quiet_NaN()) {}
    view<float> o() { return bench::heads(memory_.data(), {1, decode_step::H, 1, decode_step::D}); }
    /// max |o - exact| / max |exact|
    double error(const std::vector<double>& exact) const;
    std::span<const std::byte> bytes() const { return std::as_bytes(std::span(memory_)); }

private:
    aligned_vector<float> memory_;
};

/// How a way to decode is judged.
struct promise {
    index_t keys;                    // that a step reads, of each head
    double key_bytes;                // of K and V in all heads, for each
    double tolerance;                // of the error against `right`
    std::vector<double> right = {};  // what it computes, (H, D), if that is not what is exact for all tokens
};

/// Runs a step once and judges its answer, which lives as long as the job. The column `error` is that against the exact
/// result of all tokens.
prepared judged(const prompt& x, const answer& to, job run, const promise& given);

}  // namespace bench
