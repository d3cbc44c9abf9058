// Votes of heads, of one layer or of several, for the keys that all of them are then to attend to: how Ltri-LLM [100]
// settles on the spans its heads have in common, and keeps what earlier steps looked for.
//
//   votes_j = decay votes_j + heads, of the layers heard since then, that chose key j      one decay a step
//   votes.next(), votes.hear(index.choose(q, cache, rule, scale).keys);
//   const gathered common(cache, votes.elected(n, G));      attention(q, common, o, causal{});
// Cost: an addition for each key chosen; numbers of all keys a step. Keys are numbered as the source holds them.
#pragma once

#include <cmath>

#include "gathered.hpp"
#include "topk.hpp"

namespace heed::inline HEED_ABI {

class key_votes {
public:
    explicit key_votes(double decay = 0) : decay_(decay) {
        require_argument(0 <= decay && decay <= 1, op, "decay is ", decay, ", not in [0, 1]");
    }

    /// A step begins: what was heard before counts `decay` times as much as it did.
    void next() {
        for (auto& votes : votes_)
            for (double& x : votes) x *= decay_;
    }
    /// The choice of a layer: every head votes for the keys on its list. All layers have the same sequences.
    void hear(const key_lists& chosen) {
        const index_t B = chosen.batch();
        require_shape(votes_.empty() || std::ssize(votes_) == B, op, "the choice has batch ", B, ", those before had ",
                      votes_.size());
        votes_.resize(static_cast<std::size_t>(B));
        for (index_t b = 0; b < B; ++b) {
            auto& votes = votes_[static_cast<std::size_t>(b)];
            for (index_t g = 0; g < chosen.heads(); ++g) {
                const auto& list = chosen(b, g);
                if (!list.empty()) votes.resize(std::max(votes.size(), static_cast<std::size_t>(list.back()) + 1));
                for (index_t j : list) votes[static_cast<std::size_t>(j)] += 1;
            }
        }
    }

    /// The `most` keys of each sequence with the most votes, ties to the earlier key, none without a vote: the same for
    /// each of G heads.
    key_lists elected(index_t most, index_t G) const {
        require_argument(most >= 0, op, most, " keys are elected, the least is 0");
        key_lists out(std::ssize(votes_), G);
        for (index_t b = 0; b < out.batch(); ++b) {
            const auto& votes = votes_[static_cast<std::size_t>(b)];
            std::vector<index_t> keys = top_k(std::span<const double>(votes), most);
            std::erase_if(keys, [&](index_t j) { return votes[static_cast<std::size_t>(j)] == 0; });
            for (index_t g = 0; g < G; ++g) out(b, g) = keys;
        }
        return out;
    }

    /// Forgets the votes for the last keys, so that `keys` remain of sequence b, as after truncate of a cache.
    void cut(index_t b, index_t keys) {
        require_argument(0 <= b && b < std::ssize(votes_), op, "sequence ", b, " of ", votes_.size());
        require_argument(keys >= 0, op, keys, " keys remain, the least is 0");
        auto& votes = votes_[static_cast<std::size_t>(b)];
        votes.resize(std::min(votes.size(), static_cast<std::size_t>(keys)));
    }
    /// Sequence b becomes a copy of sequence parents[b]; parents.size() is the new batch.
    void reorder(std::span<const index_t> parents) {
        std::vector<std::vector<double>> next;
        for (index_t parent : parents) {
            require_argument(0 <= parent && parent < std::ssize(votes_), op, "sequence ", parent, " of ",
                             votes_.size());
            next.push_back(votes_[static_cast<std::size_t>(parent)]);
        }
        votes_ = std::move(next);
    }
    /// Of the keys of sequence b, up to the last that was ever voted for.
    std::span<const double> votes(index_t b) const { return votes_[static_cast<std::size_t>(b)]; }

private:
    static constexpr const char* op = "key_votes";
    double decay_;
    std::vector<std::vector<double>> votes_;  // (B), by key
};

}  // namespace heed::inline HEED_ABI
