// One row block against one key tile: the hot loop of attention, forward.
//
//   for each visible micro-block of keys      S = K Q^T   (keys, rows)   then score, mask, weight, all in registers
//                                             P = weights (keys, rows)   each at its key; what nobody sees is left out
//   O += V^T P                                            (E, rows)
//
// Lanes are query rows, so the softmax needs no horizontal step, and K and V are read one scalar at a time, straight
// from memory, whatever their width, tail or row stride. The panels of a row block are (D, rows), (E, rows).
#pragma once

#include "../policy/score.hpp"
#include "../policy/weight.hpp"
#include "../tile/panels.hpp"
#include "../tile/softmax.hpp"
#include "tiled_products.hpp"

namespace heed::inline HEED_ABI::detail {

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

    /// For K neighbouring keys, the first of them w.j.
    template <class X, int K>
    HEED_INLINE void operator()(X (&x)[K], const where& w) const {
        if constexpr (has_score) along_keys(*score, x, w);
        if constexpr (additive_mask<Mask>) add_along_keys_of(*mask, x, w);
    }
};
/// Without a score or an additive mask the type does not name the mask, so all masks share one hot loop.
struct no_logit_map {
    static constexpr bool trivial = true;
};

/// Logits of one micro-block for W packs of rows: s = K Q^T, scaled, mapped, in base 2 for softmax; masked pairs are
/// -inf. Between the K stretches of the product, meanwhile(r) has the ports that multiply-adds leave idle. `products`: null, or
/// those of the whole tile, (keys, rows).
template <class Op, class Tiling, bool Normalised, int W, class T, class Panel, class Logit, class P, class Meanwhile>
HEED_INLINE void logits(register_tile<P, Tiling::keys, W>& s, const row_block<T, Panel>& block,
                        const key_tile<Op>& tile, const visible_keys& at, index_t depth, T post_scale,
                        const Logit& logit, [[maybe_unused]] const T* products, const Meanwhile& meanwhile) {
    constexpr int K = Tiling::keys;
    constexpr index_t L = Tiling::lanes;
    const index_t first = at.block * K, width = block.width(L);
    const typename Op::scalar* k = tile.k + first * tile.k_stride;
    const typename Op::scalar* q = block.q + at.pack * L;
    if (Op::tiled && products)
        s.load_rows(products + first * width + at.pack * L, width);
    else
        s.clear();
    for (int r = 0; r < K; ++r) {
        const index_t from = depth * r / K, to = depth * (r + 1) / K;
        // A K-th of the depth is stepped through while one key of the next micro-block is asked for.
        const prefetch ahead{address(k, (K + r) * tile.k_stride), K * static_cast<index_t>(sizeof *k)};
        if (!Op::tiled || !products)
            multiply<Op>(s, k + from, tile.k_stride, static_index<1>{}, q + from * width, width, to - from, ahead);
        meanwhile(r);
    }
    if constexpr (Op::step > 1) {
        const P by(post_scale);
        unroll<K>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<W>([&](auto c) HEED_INLINE_LAMBDA { s.at[r][c] = s.at[r][c] * by; });
        });
    }
    if constexpr (!Logit::trivial) {
        const where w = block.at.at(block.at.first + at.pack * L, tile.keys.first + first);
        const P base(log2_e<T>);
        unroll<W>([&](auto c) HEED_INLINE_LAMBDA {
            where here = w;
            here.row += c * L;
            here.i += c * L;
            P x[K];
            unroll<K>([&](auto r) HEED_INLINE_LAMBDA { x[r] = s.at[r][c]; });
            logit(x, here);
            unroll<K>([&](auto r) HEED_INLINE_LAMBDA {
                s.at[r][c] = Normalised ? finite_in_base_two(x[r]) * base : x[r];
            });
        });
    }
    if (!at.full) {
        const P hidden(-std::numeric_limits<T>::infinity());
        const lane_bits* bits = at.bits + at.pack;
        unroll<K>([&](auto r) HEED_INLINE_LAMBDA {
            unroll<W>([&](auto c) HEED_INLINE_LAMBDA {
                s.at[r][c] = select(mask_of_bits<T, typename P::arch_type>(bits[c].key[r]), s.at[r][c], hidden);
            });
        });
    }
}

/// Consecutive keys that the same packs of rows see.
struct key_run {
    index_t key = 0;    // first row of P and V
    index_t count = 0;  // steps of depth
    int pack = 0;       // first pack
    int packs = 0;
};

/// O rows [e, e + R) += V^T P over the runs [first, last), which have the same W packs.
template <class Op, int R, int W, class T>
HEED_NOINLINE void add_values(const key_tile<Op>& tile, index_t e, const typename Op::scalar* p, const key_run* first,
                              const key_run* last, index_t width, T* o) {
    using P = typename Op::accumulator;
    const index_t at = first->pack * static_cast<index_t>(P::size);
    register_tile<P, R, W> acc;
    acc.load_rows(o + e * width + at, width);
    constexpr index_t line = 64 / sizeof(typename Op::scalar);
    for (const key_run* run = first; run != last; ++run) {
        const typename Op::scalar* v = tile.value(e, run->key);
        const prefetch ahead{address(v, line), tile.v_stride * static_cast<index_t>(sizeof *v)};
        multiply<Op>(acc, v, tile.channel_stride(), tile.step_stride(), p + run->key * width + at, width, run->count, ahead);
    }
    acc.store_rows(o + e * width + at, width);
}

template <class Op, int K, int W, class T>
void add_all_values(const key_tile<Op>& tile, index_t E, const typename Op::scalar* p, const key_run* first,
                    const key_run* last, index_t width, T* o) {
    index_t e = 0;
    for (; e + K <= E; e += K) add_values<Op, K, W>(tile, e, p, first, last, width, o);
    if constexpr (K > 4)
        for (; e + 4 <= E; e += 4) add_values<Op, 4, W>(tile, e, p, first, last, width, o);
    for (; e < E; ++e) add_values<Op, 1, W>(tile, e, p, first, last, width, o);
}

/// The same where V holds a NaN or inf that some row must not see: 0 * NaN is NaN, so V reads as 0 in the rows it is
/// hidden from. The steps and their order are those of add_values, and so are the bits. Rare and slow.
template <class A, class T, class Op>
HEED_NOINLINE void add_values_guarded(row_block<T, typename Op::scalar>& block, const key_tile<Op>& tile,
                                      const tile_plan<A, T>& plan, index_t E, const typename Op::scalar* p) {
    using P = typename Op::accumulator;
    constexpr index_t L = tiling<A, T>::lanes, steps = tiling<A, T>::keys / Op::step;
    const index_t width = block.width(L);
    for (int x = 0; x < plan.count; ++x) {
        const visible_keys& at = plan.at[x];
        for (index_t t = 0; t < ceil_div(at.count, Op::step); ++t)
            for (int c = at.pack; c < at.pack + at.packs; ++c) {
                std::uint32_t seen[Op::step] = {};
                for (int k = 0; k < Op::step; ++k)
                    if (const int key = static_cast<int>(t) * Op::step + k; key < at.count) seen[k] = at.seen(c, key);
                const auto weights = Op::panel(p + (at.block * steps + t) * width + c * L);
                for (index_t e = 0; e < E; ++e) {
                    T* o = block.o + e * width + c * L;
                    const auto* v = tile.value(e, at.block * steps + t);
                    store_aligned(o, Op::apply(weights, Op::operand_where(seen, v), load_aligned<P>(o)));
                }
            }
    }
}

/// Turns the waiting logits of one step of P (a key, or a pair of keys) into weights, for one pack of rows, and joins
/// their sums to l.
template <class Op, class T, class Weight>
HEED_INLINE void weigh(const T* waiting, index_t width, const T* m, T* l, const Weight& weight, typename Op::scalar* p) {
    using P = typename Op::accumulator;
    P x[Op::step];
    unroll<Op::step>([&](auto k) HEED_INLINE_LAMBDA {
        x[k] = load_aligned<P>(waiting + k * width);
        if constexpr (Weight::normalised)
            x[k] = exp2_nonpositive(x[k] - load_aligned<P>(m));
        else  // a masked pair weighs 0, whatever the function makes of -inf
            x[k] = select(x[k] == P(-std::numeric_limits<T>::infinity()), P(T(0)), weight(x[k]));
    });
    if constexpr (Weight::normalised) {
        P sum = load_aligned<P>(l);
        unroll<Op::step>([&](auto k) HEED_INLINE_LAMBDA { sum += x[k]; });
        store_aligned(l, sum);
    }
    Op::store_weights(p, x);
}

/// The whole step of a row block. `guarded`: V holds a NaN or inf that some row must not see.
template <class A, class T, class Op, class Weight, class Logit>
HEED_NOINLINE void attend_tile(row_block<T, typename Op::scalar>& block, const key_tile<Op>& tile,
                               const tile_plan<A, T>& plan, index_t D, index_t E, T post_scale, const Logit& logit,
                               const Weight& weight, bool guarded, typename Op::scalar* p, [[maybe_unused]] T* products) {
    using shape = tiling<A, T>;
    using P = pack<T, A>;
    constexpr int K = shape::keys;
    constexpr index_t L = shape::lanes;
    constexpr index_t steps = K / Op::step;  // P rows of a micro-block
    const index_t width = block.width(L);
    key_run runs[shape::micro_blocks];
    int run_count = 0;
    alignas(64) T waiting[K * shape::most_rows];  // logits of the entry before, to become weights in the next product
    const visible_keys* waits = nullptr;
    const auto weigh_waiting = [&](int r, auto packs) HEED_INLINE_LAMBDA {
        if (!waits || r % Op::step != 0) return;
        const index_t row = waits->block * steps + r / Op::step, stride = waits->packs * L;
        const auto weigh_pack = [&](auto c) HEED_INLINE_LAMBDA {
            const index_t lane = (waits->pack + c) * L;
            weigh<Op>(waiting + r * stride + c * L, stride, block.m + lane, block.l + lane, weight,
                      p + row * width + lane);
        };
        if (waits->packs == packs)  // as many as the product at hand: nearly always
            unroll<packs>(weigh_pack);
        else
            for (int c = 0; c < waits->packs; ++c) weigh_pack(c);
    };
    [[maybe_unused]] typename Op::registers registers;
    [[maybe_unused]] std::uint64_t chunks = 0;  // that some row sees, where products are tiled
    if constexpr (Op::tiled) {
        chunks = visible_chunks(plan);
        if (Op::granted())
            multiply_queries(registers, block, tile, chunks, ceil_div(D, Op::step), products);
        else
            products = nullptr;
    }
    for (int x = 0; x < plan.count; ++x) {
        const visible_keys& at = plan.at[x];
        with_packs(at.packs, [&](auto packs) HEED_INLINE_LAMBDA {
            constexpr int W = packs;
            register_tile<P, K, W> s;
            logits<Op, shape, Weight::normalised, W>(s, block, tile, at, ceil_div(D, Op::step), post_scale, logit, products,
                                                     [&](int r) HEED_INLINE_LAMBDA { weigh_waiting(r, packs); });
            const index_t lane = at.pack * L;
            if constexpr (Weight::normalised)
                follow_maximum(s, block.m + lane, block.l + lane, [&](const P(&alpha)[W]) {
                    for (index_t e = 0; e < E; ++e)
                        unroll<W>([&](auto c) HEED_INLINE_LAMBDA {
                            T* o = block.o + e * width + lane + c * L;
                            store_aligned(o, alpha[c] * load_aligned<P>(o));
                        });
                    for (int done = 0; done < x; ++done)
                        for (index_t row = plan.at[done].block * steps, t = 0; t < steps; ++t, ++row)
                            unroll<W>([&](auto c) HEED_INLINE_LAMBDA {
                                Op::rescale(p + row * width + lane + c * L, alpha[c]);
                            });
                });
            s.store_rows(waiting, W * L);
        });
        waits = &at;
        const key_run run{at.block * steps, ceil_div(at.count, Op::step), at.pack, at.packs};
        key_run* before = run_count > 0 ? &runs[run_count - 1] : nullptr;
        if (before && before->key + before->count == run.key && before->pack == run.pack && before->packs == run.packs)
            before->count += run.count;
        else
            runs[run_count++] = run;
    }
    for (int r = 0; r < K; ++r) weigh_waiting(r, std::integral_constant<int, tile_packs>{});
    if constexpr (Op::tiled)
        if (products) return add_values_tiled(registers, block, tile, plan, chunks, E, p, guarded);
    if (guarded) return add_values_guarded<A, T, Op>(block, tile, plan, E, p);
    for (const key_run *first = runs, *end = runs + run_count; first != end;) {
        const key_run* last = first + 1;
        while (last != end && last->pack == first->pack && last->packs == first->packs) ++last;
        with_packs(first->packs, [&](auto packs) HEED_INLINE_LAMBDA {
            add_all_values<Op, K, packs>(tile, E, p, first, last, width, block.o);
        });
        first = last;
    }
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
    multiply<Op>(s, tile.k + first * tile.k_stride, tile.k_stride, static_index<1>{}, block.q, C * L, ceil_div(D, Op::step), {});
    const P to_natural(natural_factor), hidden(-std::numeric_limits<T>::infinity());
    s.store_rows(out, C * L);
    for (int r = 0; r < K; ++r)
        for (int c = 0; c < C; ++c) {
            T* to = out + (r * C + c) * L;
            where w = block.at.at(block.at.first + c * L, tile.keys.first + first + r);
            const P product = load_aligned<P>(to);
            P y = product * to_natural;
            store_aligned(to, y);
            y = score(y, w);
            store_aligned(to + size, y);
            if constexpr (additive_mask<Mask>) y = mask.add(y, w);
            const auto visible = mask_of_bits<T, A>(at.seen(c, r));
            y = select(visible, y, hidden);
            store_aligned(to + 2 * size, y);
            if constexpr (Weight::normalised) {  // in the roundings of m; here l holds the inverse of the sum
                if constexpr (logit_map<Score, Mask>::trivial && Op::step == 1)
                    y = product;  // in base 2 already
                else
                    y = pinned(finite_in_base_two(y) * P(log2_e<T>));
                y = exp2_nonpositive(y - load_aligned<P>(block.m + c * L)) * load_aligned<P>(block.l + c * L);
            } else {
                y = weight(y);
            }
            store_aligned(to + 3 * size, select(visible, y, P(T(0))));
        }
}

}  // namespace heed::inline HEED_ABI::detail
