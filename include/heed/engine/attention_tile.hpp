// One row block against one key tile: the hot loop of attention, forward.
//
//   for each visible micro-block of keys      S = K Q^T   (keys, rows)   then score, mask, weight, all in registers
//                                             P = weights (keys, rows)   compact: skipped micro-blocks leave no hole
//   O += V^T P                                            (E, rows)
//
// Lanes are query rows, so the softmax needs no horizontal step, and K and V are read one scalar at a time, straight
// from memory, whatever their width, tail or row stride. The panels of a row block are (D, rows), (E, rows).
#pragma once

#include "../policy/mask.hpp"
#include "../policy/score.hpp"
#include "../policy/weight.hpp"
#include "../tile/panels.hpp"
#include "../tile/softmax.hpp"

namespace heed::inline HEED_ABI::detail {

/// Tile extents; they depend on type and instruction set only.
template <class A, class T>
struct tiling {
    static constexpr index_t lanes = heed::lanes<T, A>;
    static constexpr int keys = tile_scalars<A>;  // of a micro-block
    static constexpr index_t tile_keys = 128;       // amortises the loads and stores of O; P then still fits L1
    static constexpr index_t micro_blocks = tile_keys / keys;
    static constexpr index_t most_rows = tile_packs * lanes;
};

/// Up to tile_packs packs of query rows of one head, and what is carried for them along the keys.
template <class T, class Panel>
struct row_block {
    rows at;         // positions of its rows
    int packs = 0;   // of lanes
    Panel* q;        // (D, packs * lanes)
    T* o;            // (E, packs * lanes), unnormalised
    T* m;            // reference of the exponents, base 2
    T* l;            // sum of weights
    std::uint64_t seen = 0;  // bit r: row r has met a visible key

    index_t width(index_t lanes) const { return packs * lanes; }
};

/// A micro-block of keys that some row sees.
struct visible_keys {
    int block = 0;      // which micro-block of the tile
    int count = 0;      // valid keys in it (fewer only at the end of the keys)
    bool full = false;  // all rows see all keys
    lane_bits bits[tile_packs];
};

/// The visible micro-blocks of a tile: at most one entry each, in order.
template <class A, class T>
struct tile_plan {
    using shape = tiling<A, T>;
    int count = 0;
    bool partial = false;
    visible_keys at[shape::micro_blocks];
};

/// Hidden: list every micro-block, seen or not.
template <class A, class T, bool Hidden = false, class Mask>
HEED_NOINLINE void plan_tile(const Mask& mask, const rows& r, range tile, tile_plan<A, T>& plan) {
    using shape = tiling<A, T>;
    constexpr index_t K = shape::keys, L = shape::lanes;
    plan.count = 0;
    plan.partial = false;
    const bool all = full(mask, r, tile);
    const auto visible = [&](index_t j) { return all || Hidden ? j : next(mask, r, j); };
    index_t j = visible(tile.first);
    while (j < tile.last) {
        const index_t first = tile.first + (j - tile.first) / K * K;
        const range keys{first, std::min(first + K, tile.last)};
        auto& entry = plan.at[plan.count++];
        entry.block = static_cast<int>((first - tile.first) / K);
        entry.count = static_cast<int>(keys.size());
        const bool every = all || full(mask, r, keys);
        entry.full = every && entry.count == K;
        if (!entry.full) {
            plan.partial = true;
            for (int c = 0; c * L < r.size(); ++c) {
                rows part = r;
                part.first = r.first + c * L;
                part.last = std::min(r.last, part.first + L);
                if (every) {
                    entry.bits[c] = {};
                    for (int k = 0; k < entry.count; ++k) entry.bits[c].key[k] = 0xffff;
                } else {
                    entry.bits[c] = bits(mask, part, first, entry.count);
                }
            }
        }
        j = keys.last < tile.last ? visible(keys.last) : tile.last;
    }
}

/// Where a key tile's K and V stand: K rows of scalars, V rows (or interleaved pair rows) of scalars.
template <class Op>
struct key_tile {
    range keys;
    const typename Op::scalar* k = nullptr;
    index_t k_stride = 0;  // in scalars
    const typename Op::scalar* v = nullptr;
    index_t v_stride = 0;
};

/// p + n as an address only: it may lie outside the array p points into.
template <class T>
const void* address(const T* p, index_t n) {
    return reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(n) * sizeof(T));
}

/// The logit functor of a call: score, then what an additive mask adds; trivial when there is neither.
template <class Score, class Mask>
struct logit_map {
    static constexpr bool has_score = !std::is_same_v<Score, identity>;
    static constexpr bool trivial = !has_score && !additive_mask<Mask>;
    const Score* score;
    const Mask* mask;

    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        if constexpr (has_score) x = (*score)(x, w);
        if constexpr (additive_mask<Mask>) x = mask->add(x, w);
        return x;
    }
};
/// Without a score or an additive mask the type does not name the mask, so all masks share one hot loop.
struct no_logit_map {
    static constexpr bool trivial = true;
};

/// Logits of one micro-block: s = K Q^T, scaled, mapped, in base 2 for softmax; masked pairs are -inf. Between the K
/// stretches of the product, meanwhile(r) has the ports that multiply-adds leave idle.
template <class Op, class Tiling, bool Normalised, int C, class T, class Panel, class Logit, class P, class Meanwhile>
HEED_INLINE void logits(register_tile<P, Tiling::keys, C>& s, const row_block<T, Panel>& block,
                        const key_tile<Op>& tile, const visible_keys& at, index_t depth, T post_scale,
                        const Logit& logit, const Meanwhile& meanwhile) {
    constexpr int K = Tiling::keys;
    constexpr index_t L = Tiling::lanes;
    s.clear();
    const index_t first = at.block * K;
    const typename Op::scalar* k = tile.k + first * tile.k_stride;
    for (int r = 0; r < K; ++r) {
        const index_t from = depth * r / K, to = depth * (r + 1) / K;
        // A K-th of the depth is stepped through while one key of the next micro-block is asked for.
        const prefetch ahead{address(k, (K + r) * tile.k_stride), K * static_cast<index_t>(sizeof *k)};
        multiply<Op>(s, k + from, tile.k_stride, static_index<1>{}, block.q + from * C * L, to - from, ahead);
        meanwhile(r);
    }
    if constexpr (Op::step > 1) {
        const P by(post_scale);
        unroll<K>([&](auto r) HEED_INLINE_LAMBDA { unroll<C>([&](auto c) HEED_INLINE_LAMBDA { s.at[r][c] = s.at[r][c] * by; }); });
    }
    if constexpr (!Logit::trivial) {
        where w = block.at.at(block.at.first, tile.keys.first + first);
        const P base(Normalised ? log2_e<T> : T(1));
        unroll<K>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
                where here = w;
                here.row += c * L;
                here.i += c * L;
                here.j += r;
                s.at[r][c] = logit(s.at[r][c], here) * base;
            });
        });
    }
    if (!at.full) {
        const P hidden(-std::numeric_limits<T>::infinity());
        unroll<K>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
                s.at[r][c] = select(mask_of_bits<T, typename P::arch_type>(at.bits[c].key[r]), s.at[r][c], hidden);
            });
        });
    }
}

/// O rows [e, e + R) += V^T P over runs of keys.
struct key_run {
    index_t row = 0;    // first row of P
    index_t key = 0;    // first row of V
    index_t count = 0;  // steps of depth
};

template <class Op, int R, int C, class T>
HEED_NOINLINE void add_values(const key_tile<Op>& tile, index_t e, const typename Op::scalar* p, const key_run* runs,
                              int run_count, T* o) {
    using P = typename Op::accumulator;
    constexpr index_t width = C * static_cast<index_t>(P::size);
    register_tile<P, R, C> acc;
    acc.load_rows(o + e * width, width);
    constexpr index_t line = 64 / sizeof(typename Op::scalar);
    for (int x = 0; x < run_count; ++x) {
        const typename Op::scalar* v = tile.v + runs[x].key * tile.v_stride + e;
        const prefetch ahead{address(v, line), tile.v_stride * static_cast<index_t>(sizeof *v)};
        multiply<Op>(acc, v, static_index<1>{}, tile.v_stride, p + runs[x].row * width, runs[x].count, ahead);
    }
    acc.store_rows(o + e * width, width);
}

/// The same where V holds a NaN or inf that some row must not see: 0 * NaN is NaN, so hidden pairs are left out one by
/// one. Rare and slow.
template <class A, class T, class Op, int C>
HEED_NOINLINE void add_values_guarded(row_block<T, typename Op::scalar>& block, const key_tile<Op>& tile,
                                      const tile_plan<A, T>& plan, index_t E, const typename Op::scalar* p) {
    using shape = tiling<A, T>;
    constexpr index_t L = shape::lanes, width = C * L;
    for (int x = 0; x < plan.count; ++x) {
        const visible_keys& at = plan.at[x];
        for (int key = 0; key < at.count; ++key)
            for (index_t row = 0; row < width; ++row) {
                if (!at.full && !(at.bits[row / L].key[key] >> (row % L) & 1)) continue;
                const T weight = Op::weight_at(p, x * shape::keys + key, row, width);
                for (index_t e = 0; e < E; ++e)
                    block.o[e * width + row] +=
                        weight * Op::value_at(tile.v, at.block * shape::keys + key, e, tile.v_stride);
            }
    }
}

/// Turns the waiting logits of one step of P (a key, or a pair of keys) into weights, and joins their sums to l.
template <class Op, int C, class T, class Weight>
HEED_INLINE void weigh(const T* waiting, const T* m, T* l, const Weight& weight, typename Op::scalar* p) {
    using P = typename Op::accumulator;
    constexpr index_t L = static_cast<index_t>(P::size);
    unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
        P x[Op::step];
        unroll<Op::step>([&](auto k) HEED_INLINE_LAMBDA {
            x[k] = load_aligned<P>(waiting + (k * C + c) * L);
            if constexpr (Weight::normalised)
                x[k] = exp2_nonpositive(x[k] - load_aligned<P>(m + c * L));
            else  // a masked pair weighs 0, whatever the function makes of -inf
                x[k] = select(x[k] == P(-std::numeric_limits<T>::infinity()), P(T(0)), weight(x[k]));
        });
        if constexpr (Weight::normalised) {
            P sum = load_aligned<P>(l + c * L);
            unroll<Op::step>([&](auto k) HEED_INLINE_LAMBDA { sum += x[k]; });
            store_aligned(l + c * L, sum);
        }
        Op::store_weights(p + c * L, x);
    });
}

/// The whole step for a row block of C packs. `guarded`: V holds a NaN or inf that some row must not see.
template <class A, class T, class Op, class Weight, int C, class Logit, class Panel>
HEED_NOINLINE void attend_tile(row_block<T, Panel>& block, const key_tile<Op>& tile, const tile_plan<A, T>& plan,
                               index_t D, index_t E, T post_scale, const Logit& logit, const Weight& weight,
                               bool guarded, typename Op::scalar* p) {
    using shape = tiling<A, T>;
    using P = pack<T, A>;
    constexpr int K = shape::keys;
    constexpr index_t L = shape::lanes, width = C * L;
    constexpr index_t steps = K / Op::step;  // P rows of a micro-block
    key_run runs[shape::micro_blocks];
    int run_count = 0;
    alignas(64) T waiting[K * width];  // logits of the micro-block before, to become weights during the next product
    int waits = -1;
    const auto weigh_waiting = [&](int r) HEED_INLINE_LAMBDA {
        if (waits >= 0 && r % Op::step == 0)
            weigh<Op, C>(waiting + r * width, block.m, block.l, weight, p + (waits * steps + r / Op::step) * width);
    };
    for (int x = 0; x < plan.count; ++x) {
        const visible_keys& at = plan.at[x];
        register_tile<P, K, C> s;
        logits<Op, shape, Weight::normalised, C>(s, block, tile, at, ceil_div(D, Op::step), post_scale, logit,
                                                weigh_waiting);
        if constexpr (Weight::normalised)
            follow_maximum(s, block.m, block.l, [&](const P(&alpha)[C]) {
                for (index_t e = 0; e < E; ++e)
                    unroll<C>([&](auto c) HEED_INLINE_LAMBDA {
                        T* o = block.o + e * width + c * L;
                        store_aligned(o, alpha[c] * load_aligned<P>(o));
                    });
                for (index_t row = 0; row < x * steps; ++row)
                    unroll<C>([&](auto c) HEED_INLINE_LAMBDA { Op::rescale(p + row * width + c * L, alpha[c]); });
            });
        s.store_rows(waiting, width);
        waits = x;
        const index_t count = ceil_div(at.count, Op::step);
        if (run_count > 0 && runs[run_count - 1].key + runs[run_count - 1].count == at.block * steps)
            runs[run_count - 1].count += count;
        else
            runs[run_count++] = {x * steps, at.block * steps, count};
    }
    for (int r = 0; r < K; ++r) weigh_waiting(r);
    if (guarded) return add_values_guarded<A, T, Op, C>(block, tile, plan, E, p);
    index_t e = 0;
    for (; e + K <= E; e += K) add_values<Op, K, C>(tile, e, p, runs, run_count, block.o);
    if constexpr (K > 4)
        for (; e + 4 <= E; e += 4) add_values<Op, 4, C>(tile, e, p, runs, run_count, block.o);
    for (; e < E; ++e) add_values<Op, 1, C>(tile, e, p, runs, run_count, block.o);
}

/// The four stages of one micro-block, [key][row], `size` elements apart from `out` on, in natural units.
template <class A, class T, class Op, int C, class Score, class Mask, class Weight>
HEED_NOINLINE void observe_block(const row_block<T, typename Op::scalar>& block, const key_tile<Op>& tile,
                                   const visible_keys& at, index_t D, T natural_factor, const Score& score,
                                   const Mask& mask, const Weight& weight, T* out, index_t size) {
    using shape = tiling<A, T>;
    using P = pack<T, A>;
    constexpr int K = shape::keys;
    constexpr index_t L = shape::lanes;
    register_tile<P, K, C> s;
    s.clear();
    const index_t first = at.block * K;
    multiply<Op>(s, tile.k + first * tile.k_stride, tile.k_stride, static_index<1>{}, block.q, ceil_div(D, Op::step), {});
    const P to_natural(natural_factor), hidden(-std::numeric_limits<T>::infinity());
    s.store_rows(out, C * L);
    for (int r = 0; r < K; ++r)
        for (int c = 0; c < C; ++c) {
            T* to = out + (r * C + c) * L;
            where w = block.at.at(block.at.first + c * L, tile.keys.first + first + r);
            P y = load_aligned<P>(to) * to_natural;
            store_aligned(to, y);
            y = score(y, w);
            store_aligned(to + size, y);
            if constexpr (additive_mask<Mask>) y = mask.add(y, w);
            const auto visible = at.full ? mask_of_bits<T, A>(0xffff) : mask_of_bits<T, A>(at.bits[c].key[r]);
            y = select(visible, y, hidden);
            store_aligned(to + 2 * size, y);
            if constexpr (Weight::normalised)  // here l holds the inverse of the sum
                y = exp2_nonpositive(fma(y, P(log2_e<T>), -load_aligned<P>(block.m + c * L))) *
                    load_aligned<P>(block.l + c * L);
            else
                y = weight(y);
            store_aligned(to + 3 * size, select(visible, y, P(T(0))));
        }
}

}  // namespace heed::inline HEED_ABI::detail
