// One call of attention: its operands, policies and cut, and the loops over tasks, key tiles and row blocks.
//
// First walk: S, softmax, O += P V, finish. Second walk, only where a probe asks: rows whose sums are known meet their
// keys again, so that probabilities, masses and chosen logits are exact and the output's bits are not touched.
#pragma once

#include "../core/context.hpp"
#include "../policy/probe.hpp"
#include "attention_operands.hpp"
#include "tile_source.hpp"

namespace heed::inline HEED_ABI::detail {

/// Scratch of one worker.
template <class A, class T, class Op>
struct attention_scratch_space {
    using scalar = typename Op::scalar;
    scalar* q[most_units];
    T* o[most_units];
    T* m;
    T* l;
    scalar* p;
    scalar* k;
    scalar* v;
    T* observed;  // four stages of a micro-block

    attention_scratch_space(carver& from, index_t units, index_t D, index_t E, bool observes) {
        using shape = tiling<A, T>;
        constexpr index_t rows = shape::most_rows;
        const index_t depth = ceil_div(D, Op::step);
        for (index_t u = 0; u < units; ++u) {
            q[u] = from.take<scalar>(depth * rows);
            o[u] = from.take<T>(E * rows);
        }
        m = from.take<T>(units * rows);
        l = from.take<T>(units * rows);
        p = from.take<scalar>(shape::tile_keys / Op::step * rows);
        k = from.take<scalar>(shape::tile_keys * depth);
        v = from.take<scalar>(shape::tile_keys / Op::step * E);
        observed = observes ? from.take<T>(4 * shape::keys * rows) : nullptr;
    }
};

template <class Probe>
concept observes_rows = requires { requires Probe::observes_rows; };
template <class Probe>
concept observes_keys = requires { requires Probe::observes_keys; };
/// Wants the row's log-sum-exp.
template <class Probe>
concept finishes_rows = requires(const Probe& p) { p.finish(0, 0, 0, 0.0); };
template <class Probe>
concept observes_hidden = requires { requires Probe::observes_hidden; };

/// Everything a call has decided: operands, policies by role, cut.
template <class A, class Q, class K, class V, class O, class Mask, class Score, class Weight, class... Probes>
struct attention_call {
    using T = accumulator<Q, K, V, O>;
    static constexpr bool all_bf16 = std::is_same_v<Q, bf16> && std::is_same_v<K, bf16> && std::is_same_v<V, bf16> &&
                                     std::is_same_v<O, bf16>;
    using Op = typename product<A, T, all_bf16>::type;
    using shape = tiling<A, T>;
    using scalar = typename Op::scalar;
    using space = attention_scratch_space<A, T, Op>;
    using source = tile_source<A, T, Op, K, V>;
    using map = std::conditional_t<logit_map<Score, Mask>::trivial, no_logit_map, logit_map<Score, Mask>>;
    static constexpr bool rows_observed = (observes_rows<Probes> || ...);
    static constexpr bool keys_observed = (observes_keys<Probes> || ...);
    static constexpr bool hidden_observed = (observes_hidden<Probes> || ...);
    static_assert(Weight::normalised || !(finishes_rows<Probes> || ...),
                  "heed: only softmax weights have a log-sum-exp to probe");
    static constexpr bool observed_at_all = rows_observed || keys_observed;

    attention_operands<Q, K, V, O> x;
    Mask mask;
    Score score;
    Weight weight;
    std::tuple<Probes...> probes;
    index_t shift;     // position of row 0 on the key axis
    double factor;   // of q.k
    attention_cut cut;

    index_t tasks() const { return x.B() * x.G() * cut.tasks_per_group; }
    index_t key_tasks() const { return keys_observed ? x.B() * x.H() * ceil_div(x.M(), shape::tile_keys) : 0; }
    /// Kept for a second walk that starts anew: per row the reference m and the inverse of l.
    index_t kept_sums() const { return keys_observed ? 2 * x.B() * x.H() * x.N() : 0; }
    space carve(carver& from) const { return space(from, cut.units_per_task, x.D(), x.E(), observed_at_all); }
    std::size_t worker_bytes() const {
        carver count;
        carve(count);
        return count.used();
    }
    template <executor E>
    std::size_t scratch_bytes(E& pool) const {
        carver shared;
        shared.take<T>(kept_sums());
        const index_t crew = workers(pool, std::max(tasks(), key_tasks()));
        return shared.used() + static_cast<std::size_t>(crew) * worker_bytes();
    }

    void check(const char* op) const {
        const extents_of_scores s{x.B(), x.H(), x.N(), x.M()};
        check_policy(mask, op, s);
        check_policy(score, op, s);
        check_policy(weight, op, s);
        std::apply([&](const auto&... probe) { (check_policy(probe, op, s), ...); }, probes);
        require_argument(std::isfinite(factor), op, "scale is not finite");
    }

    template <executor E>
    void run(E& pool, std::byte* memory) const {
        carver shared(memory);
        T* sums = shared.take<T>(kept_sums());
        const auto space_of = [&](index_t worker) {
            carver own(memory + shared.used() + static_cast<std::size_t>(worker) * worker_bytes());
            return carve(own);
        };
        const index_t all = tasks();
        // Last rows first: under a causal mask they are the longest tasks.
        for_tasks(pool, all, [&](index_t t, index_t w) { attend(all - 1 - t, space_of(w), sums); });
        if constexpr (keys_observed)
            for_tasks(pool, key_tasks(), [&](index_t t, index_t w) { observe_keys(t, space_of(w), sums); });
    }

private:
    /// Panels hold q in the units the exponent wants, where nothing stands between the product and the softmax.
    T panel_factor() const { return Op::step > 1 ? T(1) : product_factor(); }
    T product_factor() const {
        return static_cast<T>(factor * (map::trivial && Weight::normalised ? log2_e<double> : 1.0));
    }
    /// From panel units to those of the logits.
    T natural_factor() const {
        if (Op::step > 1) return static_cast<T>(factor);
        return map::trivial && Weight::normalised ? ln_2<T> : T(1);
    }
    map logits_map() const {
        if constexpr (map::trivial)
            return {};
        else
            return {&score, &mask};
    }

    using block = row_block<T, scalar>;

    void start(block& r, index_t b, index_t h, range packs, const space& s, index_t u) const {
        constexpr index_t L = shape::lanes;
        const index_t first = packs.first * L, n = std::min(packs.last * L, x.N()) - first;
        r.at = {b, h, first + shift, first + n + shift, shift};
        r.packs = static_cast<int>(packs.size());
        r.q = s.q[u];
        r.o = s.o[u];
        r.m = s.m + u * shape::most_rows;
        r.l = s.l + u * shape::most_rows;
        r.seen = ~std::uint64_t(0) << n;  // the lanes beyond the rows need no key
        const index_t width = r.width(L);
        const Q* from = x.q.data + b * x.q.strides[0] + h * x.q.strides[1] + first * x.q.strides[2];
        if constexpr (Op::step == 1)
            pack_panel<A>(scaled_rows<T, Q>{from, x.q.strides[2], x.q.strides[3], panel_factor()}, n, x.D(), width, r.q);
        else
            pack_panel<A>(paired_rows{from, x.q.strides[2], x.q.strides[3], x.D()}, n, ceil_div(x.D(), 2), width,
                          reinterpret_cast<float*>(r.q));
        std::fill_n(r.o, x.E() * width, T(0));
        std::fill_n(r.m, width, no_maximum<T>);
        std::fill_n(r.l, width, T(0));
    }

    void attend(index_t task, const space& s, T* sums) const {
        const index_t within = task % cut.tasks_per_group, bg = task / cut.tasks_per_group;
        const index_t b = bg / x.G(), g = bg % x.G();
        const index_t first = within * cut.units_per_task;
        const index_t count = std::min(cut.units_per_task, cut.units_per_group - first);
        block blocks[most_units];
        for (index_t u = 0; u < count; ++u) {
            const index_t h = g * x.group() + (first + u) % x.group();
            start(blocks[u], b, h, cut.packs((first + u) / x.group(), x.N(), shape::lanes), s, u);
        }
        source tiles(x.k, x.v, b, g, s.k, s.v);
        tile_plan<A, T> plan;
        walk(blocks, count, [&](range keys) {
            tiles.open(keys);
            for (index_t u = 0; u < count; ++u) {
                plan_tile<A, T>(mask, blocks[u].at, keys, plan);
                if (plan.count == 0) continue;
                tiles.load(plan);
                note_seen(blocks[u], plan);
                attend(blocks[u], tiles, plan, s.p);
            }
        });
        for (index_t u = 0; u < count; ++u) finish(blocks[u], sums);
        if constexpr (rows_observed) observe_rows(blocks, count, tiles, s);
    }

    /// Calls body(keys) for every key tile that some row of the blocks may see, in order.
    template <class Body>
    void walk(const block* blocks, index_t count, Body&& body) const {
        for (index_t j = 0; j < x.M();) {
            index_t nearest = no_key;
            for (index_t u = 0; u < count && nearest > j; ++u) nearest = std::min(nearest, next(mask, blocks[u].at, j));
            if (nearest >= x.M()) return;
            const index_t first = nearest / shape::tile_keys * shape::tile_keys;
            j = std::min(first + shape::tile_keys, x.M());
            body(range{first, j});
        }
    }

    static void note_seen(block& r, const tile_plan<A, T>& plan) {
        constexpr std::uint64_t lanes = (std::uint64_t(1) << shape::lanes) - 1;
        if (r.seen == ~std::uint64_t(0)) return;
        for (int e = 0; e < plan.count; ++e)
            for (int c = 0; c < r.packs; ++c)
                for (int k = 0; k < (plan.at[e].full ? 1 : plan.at[e].count); ++k)
                    r.seen |= (plan.at[e].seen(c, k) & lanes) << (c * shape::lanes);
    }

    void attend(block& r, const source& tiles, const tile_plan<A, T>& plan, scalar* p) const {
        bool guarded = false;
        if (plan.partial)
            for (int e = 0; e < plan.count && !guarded; ++e)
                guarded = !plan.at[e].full && !tiles.finite(plan.at[e]);
        attend_tile<A, T, Op>(r, tiles.tile(), plan, x.D(), x.E(), product_factor(), logits_map(), weight, guarded, p);
    }

    /// o = O / l, or 0 where no key was visible; the sink joins the sum here; lse is reported.
    void finish(block& r, T* sums) const {
        constexpr index_t L = shape::lanes;
        const index_t n = r.at.size(), width = r.width(L), row0 = r.at.first - r.at.shift;
        alignas(64) T by[shape::most_rows];
        for (index_t l = 0; l < width; ++l) by[l] = T(1);
        if constexpr (Weight::normalised) {
            if constexpr (requires { weight.logits; })
                for (index_t l = 0; l < n; ++l) join_sink(r, l);
            for (index_t l = 0; l < n; ++l) by[l] = r.seen >> l & 1 ? T(1) / r.l[l] : T(0);
            for (index_t l = 0; l < n; ++l) {
                const auto log_sum = [&] { return (double(r.m[l]) + std::log2(double(r.l[l]))) * ln_2<double>; };
                const bool empty = r.l[l] == T(0) && !(r.seen >> l & 1);
                const auto report = [&](const auto& probe) {
                    if constexpr (finishes_rows<decltype(probe)>)
                        probe.finish(r.at.b, r.at.h, row0 + l,
                                     empty ? -std::numeric_limits<double>::infinity() : log_sum());
                };
                std::apply([&](const auto&... probe) { (report(probe), ...); }, probes);
                if constexpr (observed_at_all) {
                    r.l[l] = by[l];  // what the second walk multiplies by
                    if constexpr (keys_observed) {
                        T* const sum = sums + 2 * ((r.at.b * x.H() + r.at.h) * x.N() + row0 + l);
                        sum[0] = r.m[l];
                        sum[1] = by[l];
                    }
                }
            }
        }
        O* to = x.o.data + r.at.b * x.o.strides[0] + r.at.h * x.o.strides[1] + row0 * x.o.strides[2];
        unpack_panel<A>(r.o, width, by, n, x.E(), to, x.o.strides[2], x.o.strides[3]);
    }

    void join_sink(block& r, index_t l) const {
        const T logit = static_cast<T>(double(weight.logits[static_cast<std::size_t>(r.at.h)]) * log2_e<double>);
        if (logit > r.m[l]) {  // move the reference, so that the sink's own exponential cannot overflow
            const T alpha = std::exp2(r.m[l] - logit);
            r.l[l] = r.l[l] * alpha + T(1);
            r.m[l] = logit;
            for (index_t e = 0; e < x.E(); ++e) r.o[e * r.width(shape::lanes) + l] *= alpha;
        } else {
            r.l[l] += std::exp2(logit - r.m[l]);
        }
    }

    /// The second walk: rows whose sums are known meet their keys again, for the probes.
    void observe_rows(block* blocks, index_t count, source& tiles, const space& s) const {
        each_probe<true>([&](const auto& probe) {
            for (index_t u = 0; u < count; ++u)
                for (index_t i = blocks[u].at.first; i < blocks[u].at.last; ++i)
                    probe.start(blocks[u].at.b, blocks[u].at.h, i - shift);
        });
        const auto look = [&](range keys) {
            tiles.open(keys);
            for (index_t u = 0; u < count; ++u) observe<true>(blocks[u], tiles, s);
        };
        if constexpr (hidden_observed)
            for (index_t j = 0; j < x.M(); j += shape::tile_keys) look({j, std::min(j + shape::tile_keys, x.M())});
        else
            walk(blocks, count, look);
    }

    /// The same for probes that sum over rows: one task owns a tile of keys and meets all rows in order.
    void observe_keys(index_t task, const space& s, const T* sums) const {
        const index_t tiles_per_head = ceil_div(x.M(), shape::tile_keys);
        const index_t bh = task / tiles_per_head, b = bh / x.H(), h = bh % x.H();
        const index_t first = task % tiles_per_head * shape::tile_keys;
        const range keys{first, std::min(first + shape::tile_keys, x.M())};
        each_probe<false>([&](const auto& probe) {
            for (index_t j = keys.first; j < keys.last; ++j) probe.start_key(b, h, j);
        });
        source tiles(x.k, x.v, b, h / x.group(), s.k, s.v);
        tiles.open(keys);
        for (index_t at = 0; at < cut.blocks_per_head; ++at) {
            block r;
            start(r, b, h, cut.packs(at, x.N(), shape::lanes), s, 0);
            for (index_t l = 0; l < r.at.size(); ++l) {
                const T* sum = sums + 2 * (bh * x.N() + r.at.first - shift + l);
                r.m[l] = sum[0];
                r.l[l] = sum[1];
            }
            observe<false>(r, tiles, s);
        }
    }

    template <bool Rows, class F>
    void each_probe(F&& f) const {
        const auto one = [&](const auto& probe) {
            using Probe = std::remove_cvref_t<decltype(probe)>;
            if constexpr (Rows ? detail::observes_rows<Probe> : detail::observes_keys<Probe>) f(probe);
        };
        std::apply([&](const auto&... probe) { (one(probe), ...); }, probes);
    }

    template <bool Rows>
    void observe(const block& r, source& tiles, const space& s) const {
        tile_plan<A, T> plan;
        plan_tile<A, T, hidden_observed && Rows>(mask, r.at, tiles.tile().keys, plan);
        if (plan.count == 0) return;
        tiles.load(plan);
        const index_t width = r.width(shape::lanes), size = shape::keys * shape::most_rows;
        for (int e = 0; e < plan.count; ++e) {
            with_packs(r.packs, [&](auto packs) {
                observe_block<A, T, Op, packs>(r, tiles.tile(), plan.at[e], x.D(), natural_factor(), score, mask,
                                               weight, s.observed, size);
            });
            const observed<T> seen{r.at.b, r.at.h, r.at.first - shift,
                                   tiles.tile().keys.first + plan.at[e].block * shape::keys,
                                   static_cast<int>(r.at.size()), plan.at[e].count, width, s.observed,
                                   s.observed + size, s.observed + 2 * size, s.observed + 3 * size};
            each_probe<Rows>([&](const auto& probe) { probe.observe(seen); });
        }
    }
};

}  // namespace heed::inline HEED_ABI::detail
