// 07: speculative decoding: a cheap draft guesses some tokens, the model checks them in one call, truncate drops the rest.
//
// The draft is the same model with a short window. Words are drawn with noise that depends on their place alone, so the
// text is the one that plain decoding gives, token by token; only the number of calls differs.
#include <algorithm>
#include <cstdio>

#include "toy_model.hpp"

using namespace heed;

namespace {

constexpr index_t words = 40, length = 600, guesses = 4, draft_window = 6;

/// A model with its cache of what it has read.
struct reader {
    const toy_model& model;
    contiguous_cache<float> cache{toy_model::shape};
    index_t calls = 0;

    /// Reads tokens and returns, after each of them, the next: the largest log probability plus Gumbel noise, which is a
    /// draw from the distribution.
    template <class... Policies>
    std::vector<index_t> read(std::span<const index_t> tokens, const Policies&... policies) {
        const auto n = static_cast<index_t>(tokens.size());
        auto k = model.keys(tokens), v = model.values(tokens);
        cache.append(heed::tokens(k.data(), {1, n, toy_model::G, toy_model::D}),
                     heed::tokens(v.data(), {1, n, toy_model::G, toy_model::D}));
        const auto p = model.log_probabilities(cache, tokens, policies...);
        ++calls;
        std::vector<index_t> next;
        for (index_t i = 0; i < n; ++i) {
            std::vector<double> noisy(words);
            for (index_t w = 0; w < words; ++w) {
                const index_t number = (cache.size() - n + i) * words + w;
                const double uniform = counter_random(5).uniform(static_cast<std::uint64_t>(number));
                noisy[static_cast<std::size_t>(w)] = p[static_cast<std::size_t>(i * words + w)] - std::log(-std::log(uniform));
            }
            next.push_back(std::max_element(noisy.begin(), noisy.end()) - noisy.begin());
        }
        return next;
    }
};

std::vector<index_t> plain(const toy_model& model) {
    reader all{model};
    std::vector<index_t> text{0};
    while (std::ssize(text) < length) text.push_back(all.read(std::span(text).last(1), causal{}).back());
    return text;
}

}  // namespace

int main() {
    const toy_model model(words);
    reader target{model}, draft{model};
    std::vector<index_t> text{0};
    while (std::ssize(text) < length) {
        // The draft goes on from the text, after what it has not read of it.
        std::vector<index_t> guess(text.begin() + draft.cache.size(), text.end());
        const index_t last = text.back();
        std::vector<index_t> proposed;
        for (index_t g = 0; g < guesses; ++g) {
            proposed.push_back(draft.read(guess, causal{} & window{draft_window}).back());
            guess = {proposed.back()};
        }
        // The model reads the last token and all guesses at once: row i says what should follow the i-th of them.
        std::vector<index_t> read{last};
        read.insert(read.end(), proposed.begin(), proposed.end());
        const std::vector<index_t> right = target.read(read, causal{});
        const auto agreed = std::mismatch(proposed.begin(), proposed.end(), right.begin()).first - proposed.begin();
        text.insert(text.end(), right.begin(), right.begin() + agreed + 1);  // what agreed, and one token more
        target.cache.truncate(guesses - agreed);  // the guesses that came to nothing
        const index_t ahead = draft.cache.size() - (std::ssize(text) - 1);
        if (ahead > 0) draft.cache.truncate(ahead);
    }
    text.resize(length);
    const bool same = text == plain(model);
    std::printf("%td tokens in %td calls of the model, %.2f a call; %s plain decoding\n", length - 1, target.calls,
                double(length - 1) / double(target.calls), same ? "the same text as" : "NOT the text of");
    return same ? 0 : 1;
}
