// A language model small enough for an example: one layer of attention between tables drawn at random. It has nothing to
// say, but it depends on all of its past, through a cache, as a real one does.
#pragma once

#include <cmath>
#include <heed/heed.hpp>
#include <span>
#include <vector>

class toy_model {
public:
    static constexpr heed::index_t H = 4, G = 2, D = 16;
    static constexpr heed::cache_shape shape{1, G, D, D};
    heed::index_t vocabulary;

    explicit toy_model(heed::index_t words)
        : vocabulary(words), q_(table(H * D, 1)), k_(table(G * D, 2)), v_(table(G * D, 3)), u_(table(H * D, 4)),
          slopes_(heed::alibi_slopes(H)) {}

    /// Keys and values of tokens, in memory order n g d.
    std::vector<float> keys(std::span<const heed::index_t> tokens) const { return rows(k_, G * D, tokens); }
    std::vector<float> values(std::span<const heed::index_t> tokens) const { return rows(v_, G * D, tokens); }

    /// Log probabilities (tokens, vocabulary) of what follows each of the newest tokens, which `past` holds already: as
    /// many of each sequence, one sequence after the other.
    template <class Source, class... Policies>
    std::vector<float> log_probabilities(const Source& past, std::span<const heed::index_t> tokens,
                                         const Policies&... policies) const {
        using namespace heed;
        const auto n = static_cast<index_t>(tokens.size());
        const index_t B = past.batch();
        std::vector<float> q = rows(q_, H * D, tokens), o(q.size());
        attention(heed::tokens(q.data(), {B, n / B, H, D}), past, heed::tokens(o.data(), {B, n / B, H, D}),
                  alibi{slopes_}, policies...);
        std::vector<float> all;
        for (index_t i = 0; i < n; ++i) {
            std::vector<float> logit(at(vocabulary));
            double sum = 0;
            for (index_t w = 0; w < vocabulary; ++w) {
                for (index_t d = 0; d < H * D; ++d) logit[at(w)] += 0.25f * o[at(i * H * D + d)] * u_[at(w * H * D + d)];
                sum += std::exp(double(logit[at(w)]));
            }
            for (float x : logit) all.push_back(static_cast<float>(x - std::log(sum)));
        }
        return all;
    }

private:
    static std::size_t at(heed::index_t i) { return static_cast<std::size_t>(i); }
    std::vector<float> table(heed::index_t width, std::uint64_t seed) const {
        std::vector<float> x(at(vocabulary * width));
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(heed::counter_random(seed).normal(i));
        return x;
    }
    static std::vector<float> rows(const std::vector<float>& table, heed::index_t width,
                                   std::span<const heed::index_t> tokens) {
        std::vector<float> out;
        for (heed::index_t t : tokens)
            out.insert(out.end(), table.begin() + t * width, table.begin() + (t + 1) * width);
        return out;
    }

    std::vector<float> q_, k_, v_, u_, slopes_;
};
