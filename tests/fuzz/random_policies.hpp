// Policies drawn from bytes: a mask of any composition, a score, and the memory they look at.
#pragma once

#include <deque>
#include <heed/heed.hpp>
#include <vector>

#include "any_mask.hpp"
#include "decisions.hpp"

namespace test {

/// Keeps what spans and views of the masks point to.
struct mask_memory {
    std::deque<std::vector<index_t>> numbers;
    std::deque<std::vector<unsigned char>> tables;
};

/// Parameters are mostly valid; a mask that is not must be refused by its check.
inline any_mask leaf_mask(decisions& d, const extents_of_scores& s, mask_memory& memory) {
    const auto length = [&] { return d.between(-1, 70); };
    const auto positive = [&] { return d.one_in(50) ? d.between(-2, 0) : d.between(1, 60); };
    const auto ascending = [&](index_t count, index_t last) -> std::vector<index_t>& {
        auto& x = memory.numbers.emplace_back();
        for (index_t i = 0; i < count; ++i) x.push_back(d.between(0, last + (d.one_in(50) ? 3 : 0)));
        if (!d.one_in(50)) std::sort(x.begin(), x.end());
        return x;
    };
    switch (d.below(19)) {
        case 0: return everything{};
        case 1: return causal{};
        case 2: return window{length(), length()};
        case 3: return chunk{positive()};
        case 4: return block_causal{positive()};
        case 5: return prefix{length()};
        case 6: return first{length()};
        case 7: return global{length()};
        case 8: return queries_from{length()};
        case 9: return dilated{length(), positive()};
        case 10: return strided{positive()};
        case 11: return fixed{positive(), positive(), d.between(1, 3)};
        case 12: return document{std::span<const index_t>(ascending(d.between(0, 6), s.M))};
        case 13: return document{std::span<const index_t>(ascending(d.between(1, 6), s.M)), causal{} & window{length()}};
        case 14: return lengths{ascending(d.one_in(50) ? s.B + 1 : s.B, s.M)};
        case 15: return global_tokens{ascending(d.between(0, 5), s.M)};
        case 16: {
            auto& seen = memory.tables.emplace_back();
            const index_t B = d.one_in(2) ? s.B : 1, H = d.one_in(2) ? s.H : 1;
            const index_t M = d.one_in(5) ? d.between(0, s.M) : s.M;
            const counter_random r(d.seed());
            const double share = d.one_in(2) ? 0.5 : 0.02;
            for (index_t i = 0; i < B * H * s.N * M; ++i) seen.push_back(r.uniform(number(i)) < share);
            return boolean{dense<const unsigned char>(seen.data(), {B, H, s.N, M})};
        }
        case 17: {
            const index_t rows = d.between(1, 40), keys = d.between(1, 40), heads = d.one_in(2) ? s.H : 1;
            auto& kept = memory.tables.emplace_back();
            const index_t R = ceil_div(s.N, rows), C = ceil_div(s.M, keys);
            const counter_random r(d.seed());
            for (index_t i = 0; i < heads * R * C; ++i) kept.push_back(r.uniform(number(i)) < 0.3);
            const block_lists lists(dense(kept.data(), {heads, R, C}));
            auto& starts = memory.numbers.emplace_back(lists.starts);
            auto& blocks = memory.numbers.emplace_back(lists.blocks);
            return block_list{rows, keys, starts, blocks, heads};
        }
        default: {
            const index_t a = d.between(0, 6), b = d.between(0, 6), m = d.between(1, 9);
            return [=](const where& w) { return ((w.i * a + w.j * b + w.h + w.row) % m + m) % m == 0; };
        }
    }
}

inline any_mask random_mask(decisions& d, const extents_of_scores& s, mask_memory& memory, int depth = 3) {
    const index_t kind = depth > 0 ? d.below(4) : 0;
    if (kind < 2) return leaf_mask(d, s, memory);
    const any_mask a = random_mask(d, s, memory, depth - 1), b = random_mask(d, s, memory, depth - 1);
    return kind == 2 ? any_mask(a & b) : any_mask(a | b);
}

/// One type for several scores, so that few engines are compiled.
struct any_score {
    using role = roles::score;
    index_t kind = 0;
    double c = 1;

    template <class X>
    X operator()(X x, const where& w) const {
        switch (kind) {
            case 1: return softcap{c}(x, w);
            case 2: return x - X(c / 64) * abs(w.gap(x));
            case 3: return softcap{c}(x + X(0.01) * (w.query_row(x) - w.key(x)), w);
            case 4: return temperature{c}(x, w);
            default: return x;
        }
    }
};

}  // namespace test
