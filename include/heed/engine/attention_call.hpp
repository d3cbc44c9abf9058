// One call of attention: its operands, policies and cut, and the loops over tasks, key tiles and row blocks.
//
// First walk: S, softmax, O += P V, finish. Second walk, only where a probe asks: rows whose sums are known meet their
// keys again, so that probabilities, masses and chosen logits are exact and the output's bits are not touched.
#pragma once

#include <optional>
#include <span>

#include "../core/context.hpp"
#include "../policy/probe.hpp"
#include "attention_operands.hpp"
#include "closing.hpp"
#include "placed.hpp"
#include "split_call.hpp"
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
    T* products;  // of a key tile, where they are tiled
    T* observed;  // four stages of a micro-block
    T* row;       // of q or o, for sources that turn them

    attention_scratch_space(carver& from, index_t units, index_t D, index_t E, bool observes, bool turns) {
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
        products = Op::tiled ? from.take<T>(shape::tile_keys * rows) : nullptr;
        observed = observes ? from.take<T>(4 * shape::keys * rows) : nullptr;
        row = turns ? from.take<T>(std::max(D, E)) : nullptr;
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
/// Says which rows (a range of row indices) it wants to see; others see all.
template <class Probe>
concept chooses_rows = requires(const Probe& p, range rows) {
    { p.wants(0, 0, rows) } -> std::same_as<bool>;
};

/// Everything a call has decided: operands, policies by role, cut.
template <class A, class Q, class Source, class O, class Mask, class Score, class Weight, class... Probes>
struct attention_call {
    using operands = attention_operands<Q, Source, O>;
    using T = accumulator<Q, typename operands::key, typename operands::value, O>;
    static constexpr bool turns_queries = requires(const Source& s, T* row) { s.turn_query(row); };
    static constexpr bool turns_outputs = requires(const Source& s, T* row) { s.turn_output(row); };
    static constexpr bool all_bf16 = !turns_queries && std::is_same_v<Q, bf16> && std::is_same_v<O, bf16> &&
                                     std::is_same_v<typename Source::key_rows, plain_rows<bf16>> &&
                                     std::is_same_v<typename Source::value_rows, plain_rows<bf16>>;
    using Op = typename product<A, T, all_bf16>::type;
    using shape = tiling<A, T>;
    using scalar = typename Op::scalar;
    using space = attention_scratch_space<A, T, Op>;
    using source = tile_source<A, T, Op, Source>;
    /// Mask and score as one head of the source meets them.
    static constexpr bool placed = placed_source<Source>;
    using head_mask = std::conditional_t<placed, placed_mask<Mask>, const Mask&>;
    using head_score =
        std::conditional_t<placed && !std::is_same_v<Score, identity>, placed_score<Score>, const Score&>;
    using both_maps = logit_map<std::remove_cvref_t<head_score>, std::remove_cvref_t<head_mask>>;
    using map = std::conditional_t<both_maps::trivial, no_logit_map, both_maps>;
    static constexpr bool rows_observed = (observes_rows<Probes> || ...);
    static constexpr bool keys_observed = (observes_keys<Probes> || ...);
    static constexpr bool hidden_observed = (observes_hidden<Probes> || ...);
    static_assert(Weight::normalised || !(finishes_rows<Probes> || ...),
                  "heed: only softmax weights have a log-sum-exp to probe");
    static constexpr bool observed_at_all = rows_observed || keys_observed;

    operands x;
    Mask mask;
    Score score;
    Weight weight;
    std::tuple<Probes...> probes;
    std::optional<index_t> offset;     // position of row 0; without it the last row stands at the last key
    std::span<const index_t> offsets;  // or one for each sequence
    double factor;                     // of q.k
    attention_cut cut;

    /// Whether lanes over the width serve the rows of a head better than lanes over rows: where these leave a quarter of a
    /// pack empty, or where there are so many keys that they are to be split over tasks. Batch and heads have no say, so
    /// that a row's bits do not depend on them.
    bool few_queries() const {
        constexpr index_t most = 16, many_keys = 16 * split_cut::fewest_keys;
        return x.N() > 0 && (4 * x.N() <= 3 * shape::lanes || (x.N() <= most && x.M() >= many_keys));
    }
    index_t shift(index_t b) const {
        if (!offsets.empty()) return offsets[static_cast<std::size_t>(b)];
        return offset ? *offset : x.end(b) - x.N();
    }
    index_t tasks() const { return x.B() * x.G() * cut.tasks_per_group; }
    index_t key_tasks() const { return keys_observed ? x.B() * x.H() * ceil_div(x.M(), shape::tile_keys) : 0; }
    /// Kept for probes that meet the keys again: per row the reference m and what 2^(logit - m) is multiplied by.
    index_t kept_sums() const { return keys_observed || (observed_at_all && few_queries()) ? 2 * x.B() * x.H() * x.N() : 0; }
    space carve(carver& from) const {
        return space(from, cut.units_per_task, x.D(), x.E(), observed_at_all, turns_queries || turns_outputs);
    }
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
        const std::size_t walk = static_cast<std::size_t>(crew) * worker_bytes();
        if (!few_queries()) return shared.used() + walk;
        return shared.used() + std::max(split().scratch_bytes(pool), hidden_observed ? walk : 0);
    }

    void check(const char* op) const {
        const extents_of_scores rows{x.B(), x.H(), x.N(), x.M()};
        const extents_of_scores positions{x.B(), x.H(), x.N(), placed ? x.last_end : x.M()};
        check_policy(mask, op, positions);
        check_policy(score, op, positions);
        check_policy(weight, op, positions);
        std::apply([&](const auto&... probe) { (check_policy(probe, op, rows), ...); }, probes);
        require_argument(std::isfinite(factor), op, "scale is not finite");
        if constexpr (requires { x.source.check_rows(op, x.N()); })
            if (!offset && offsets.empty()) x.source.check_rows(op, x.N());
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
        if (few_queries()) {
            split().run(pool, memory + shared.used(), sums);
            if constexpr (!hidden_observed) return;
            for_tasks(pool, all, [&](index_t t, index_t w) { attend(t, space_of(w), sums, true); });
        } else {
            // Last rows first: under a causal mask they are the longest tasks.
            for_tasks(pool, all, [&](index_t t, index_t w) { attend(all - 1 - t, space_of(w), sums, false); });
        }
        if constexpr (keys_observed)
            for_tasks(pool, key_tasks(), [&](index_t t, index_t w) { observe_keys(t, space_of(w), sums); });
    }

    void report(index_t b, index_t h, index_t row, const closed_row<T>& sums) const {
        const auto one = [&](const auto& probe) {
            if constexpr (finishes_rows<decltype(probe)>) probe.finish(b, h, row, sums.log_sum);
        };
        std::apply([&](const auto&... probe) { (one(probe), ...); }, probes);
    }

    template <bool Rows, class F>
    void each_probe(F&& f) const {
        const auto one = [&](const auto& probe) {
            using Probe = std::remove_cvref_t<decltype(probe)>;
            if constexpr (Rows ? detail::observes_rows<Probe> : detail::observes_keys<Probe>) f(probe);
        };
        std::apply([&](const auto&... probe) { (one(probe), ...); }, probes);
    }

private:
    auto split() const {
        return split_call<A, T, Q, O, attention_call, Source, Mask, Score, Weight>(*this, x.source, mask, score, weight);
    }

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
    key_places places(index_t b, index_t g) const { return {positions_of(x.source, b, g), x.keys(b, g)}; }
    head_mask mask_of(index_t b, index_t g) const {
        if constexpr (placed)
            return {mask, places(b, g)};
        else
            return mask;
    }
    head_score score_of(index_t b, index_t g) const {
        if constexpr (std::is_reference_v<head_score>)
            return score;
        else
            return {score, places(b, g)};
    }

    using block = row_block<T, scalar>;

    /// The rows of a block, and where it works.
    void place(block& r, index_t b, index_t h, range packs, const space& s, index_t u) const {
        constexpr index_t L = shape::lanes;
        const index_t first = packs.first * L, n = std::min(packs.last * L, x.N()) - first;
        const index_t offset_of_rows = shift(b);
        r.at = {b, h, first + offset_of_rows, first + n + offset_of_rows, offset_of_rows};
        r.packs = static_cast<int>(packs.size());
        r.q = s.q[u];
        r.o = s.o[u];
        r.m = s.m + u * shape::most_rows;
        r.l = s.l + u * shape::most_rows;
        r.seen = ~std::uint64_t(0) << n;  // the lanes beyond the rows need no key
        r.hides = false;
    }

    void load_queries(block& r, const space& s) const {
        const index_t n = r.at.size(), width = r.width(shape::lanes), row0 = r.at.first - r.at.shift;
        const Q* from = x.q.data + r.at.b * x.q.strides[0] + r.at.h * x.q.strides[1] + row0 * x.q.strides[2];
        if constexpr (Op::step == 1)
            pack_panel<A>(scaled_rows<T, Q>{from, x.q.strides[2], x.q.strides[3], panel_factor()}, n, x.D(), width, r.q);
        else
            pack_panel<A>(paired_rows{from, x.q.strides[2], x.q.strides[3], x.D()}, n, ceil_div(x.D(), 2), width,
                          reinterpret_cast<float*>(r.q));
        if constexpr (turns_queries)
            map_panel_rows(r.q, width, n, x.D(), s.row, [&](T* q) { x.source.turn_query(q); });
    }

    void start(block& r, index_t b, index_t h, range packs, const space& s, index_t u) const {
        place(r, b, h, packs, s, u);
        load_queries(r, s);
        const index_t width = r.width(shape::lanes);
        std::fill_n(r.o, x.E() * width, T(0));
        std::fill_n(r.m, width, no_maximum<T>);
        std::fill_n(r.l, width, T(0));
    }

    /// One task; `again`: its rows are done, and only the probes are to see them.
    void attend(index_t task, const space& s, T* sums, bool again) const {
        const index_t within = task % cut.tasks_per_group, bg = task / cut.tasks_per_group;
        const index_t b = bg / x.G(), g = bg % x.G();
        const index_t first = within * cut.units_per_task;
        const index_t count = std::min(cut.units_per_task, cut.units_per_group - first);
        block blocks[most_units];
        const auto start_unit = [&](index_t u) {
            const index_t h = g * x.group() + (first + u) % x.group();
            start(blocks[u], b, h, cut.packs((first + u) / x.group(), x.N(), shape::lanes), s, u);
        };
        for (index_t u = 0; u < count; ++u) {
            start_unit(u);
            if (again) recall(blocks[u], sums);
        }
        source tiles(x.source, b, g, s.k, s.v);
        const head_mask visible = mask_of(b, g);
        const head_score scored = score_of(b, g);
        const map logit = [&]() -> map {
            if constexpr (map::trivial)
                return {};
            else
                return {&scored, &visible};
        }();
        tile_plan<A, T> plan;
        const auto meet_keys = [&](index_t unit, index_t units, bool guarded) {
            walk(blocks + unit, units, visible, x.keys(b, g), [&](range keys) {
                tiles.open(keys);
                for (index_t u = unit; u < unit + units; ++u) {
                    plan_tile<A, T>(visible, blocks[u].at, keys, plan);
                    if (plan.count == 0) continue;
                    tiles.load(plan);
                    note_seen(blocks[u], plan);
                    attend(blocks[u], tiles, plan, logit, guarded, s);
                }
            });
        };
        if (!again) {
            meet_keys(0, count, false);
            // A hidden pair weighs 0, and 0 * NaN shows: only then is it looked where V is not finite.
            for (index_t u = 0; u < count; ++u)
                if (blocks[u].hides && !all_finite<A, T>(blocks[u].o, 1, x.E() * blocks[u].width(shape::lanes))) {
                    start_unit(u);
                    meet_keys(u, 1, true);
                }
        }
        for (index_t u = 0; u < count && !again; ++u) finish(blocks[u], s, sums);
        if constexpr (rows_observed) observe_rows(blocks, count, tiles, s);
    }

    /// Calls body(keys) for every tile of the first M keys that some row of the blocks may see, in order.
    template <class M, class Body>
    static void walk(const block* blocks, index_t count, const M& visible, index_t keys, Body&& body) {
        for (index_t j = 0; j < keys;) {
            index_t nearest = no_key;
            for (index_t u = 0; u < count && nearest > j; ++u)
                nearest = std::min(nearest, next(visible, blocks[u].at, j));
            if (nearest >= keys) return;
            const index_t first = nearest / shape::tile_keys * shape::tile_keys;
            j = std::min(first + shape::tile_keys, keys);
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

    /// `guarded`: where V is not finite, hidden pairs do not meet it.
    void attend(block& r, source& tiles, const tile_plan<A, T>& plan, const map& logit, bool guarded, const space& s) const {
        r.hides |= Op::tiled || plan.partial;  // tiled products meet hidden keys beside others
        bool meets = false;
        for (int e = 0; e < plan.count && guarded && !meets; ++e)
            meets = Op::tiled || (!plan.at[e].full && !tiles.finite(plan.at[e]));
        attend_tile<A, T, Op>(r, tiles.tile(), plan, x.D(), x.E(), product_factor(), logit, weight, meets, s.p, s.products);
    }

    /// o = O / l, or 0 where no key was visible; the sink joins the sum here; lse is reported.
    void finish(block& r, const space& s, T* sums) const {
        const index_t n = r.at.size(), width = r.width(shape::lanes), row0 = r.at.first - r.at.shift;
        alignas(64) T by[shape::most_rows];
        for (index_t l = n; l < width; ++l) by[l] = T(1);
        for (index_t l = 0; l < n; ++l) {
            const closed_row<T> row(weight, r.at.h, r.m[l], r.l[l], r.seen >> l & 1);
            by[l] = row.output;
            report(r.at.b, r.at.h, row0 + l, row);
            if constexpr (observed_at_all) {
                r.m[l] = row.m;
                r.l[l] = row.weight;  // what the second walk multiplies by
            }
            if constexpr (keys_observed) {
                T* const sum = sums + 2 * ((r.at.b * x.H() + r.at.h) * x.N() + row0 + l);
                sum[0] = row.m;
                sum[1] = row.weight;
            }
        }
        if constexpr (turns_outputs)
            map_panel_rows(r.o, width, n, x.E(), s.row, [&](T* o) { x.source.turn_output(o); });
        O* to = x.o.data + r.at.b * x.o.strides[0] + r.at.h * x.o.strides[1] + row0 * x.o.strides[2];
        unpack_panel<A>(r.o, width, by, n, x.E(), to, x.o.strides[2], x.o.strides[3]);
    }

    /// The second walk: rows whose sums are known meet their keys again, for the probes.
    void observe_rows(block* blocks, index_t count, source& tiles, const space& s) const {
        each_probe<true>([&](const auto& probe) {
            for (index_t u = 0; u < count; ++u)
                for (index_t i = blocks[u].at.first; i < blocks[u].at.last; ++i)
                    probe.start(blocks[u].at.b, blocks[u].at.h, i - blocks[u].at.shift);
        });
        const index_t b = blocks[0].at.b, g = blocks[0].at.h / x.group(), keys = x.keys(b, g);
        const head_mask visible = mask_of(b, g);
        tile_plan<A, T> plan;
        bool some = false, chosen[most_units];
        for (index_t u = 0; u < count; ++u) {
            chosen[u] = wanted<true>(blocks[u].at);
            some |= chosen[u];
        }
        if (!some) return;
        const auto look = [&](range at) {
            tiles.open(at);
            for (index_t u = 0; u < count; ++u) {
                if (!chosen[u]) continue;
                plan_tile<A, T, hidden_observed>(visible, blocks[u].at, at, plan);
                if (plan.count > 0) observe<true>(blocks[u], tiles, plan, s);
            }
        };
        if constexpr (hidden_observed)
            for (index_t j = 0; j < keys; j += shape::tile_keys) look({j, std::min(j + shape::tile_keys, keys)});
        else
            walk(blocks, count, visible, keys, look);
    }

    /// Whether some probe of rows, or of keys, wants to see a row of these.
    template <bool Rows>
    bool wanted(const rows& r) const {
        bool some = false;
        each_probe<Rows>([&](const auto& probe) {
            if constexpr (chooses_rows<std::remove_cvref_t<decltype(probe)>>)
                some |= probe.wants(r.b, r.h, range{r.first - r.shift, r.last - r.shift});
            else
                some = true;
        });
        return some;
    }

    /// The same for probes that sum over rows: one task owns a tile of keys and meets all rows in order.
    void observe_keys(index_t task, const space& s, const T* sums) const {
        const index_t tiles_per_head = ceil_div(x.M(), shape::tile_keys);
        const index_t bh = task / tiles_per_head, b = bh / x.H(), h = bh % x.H();
        const index_t first = task % tiles_per_head * shape::tile_keys;
        const range keys{first, std::min(first + shape::tile_keys, x.M())}, held = keys & range{0, x.keys(b, h / x.group())};
        each_probe<false>([&](const auto& probe) {
            for (index_t j = keys.first; j < keys.last; ++j) probe.start_key(b, h, j);
        });
        if (held.empty()) return;
        const head_mask visible = mask_of(b, h / x.group());
        source tiles(x.source, b, h / x.group(), s.k, s.v);
        tiles.open(held);
        tile_plan<A, T> plan;
        for (index_t at = 0; at < cut.blocks_per_head; ++at) {
            block r;
            place(r, b, h, cut.packs(at, x.N(), shape::lanes), s, 0);
            if (!wanted<false>(r.at)) continue;
            plan_tile<A, T>(visible, r.at, held, plan);
            if (plan.count == 0) continue;
            load_queries(r, s);
            recall(r, sums);
            observe<false>(r, tiles, plan, s);
        }
    }

    /// The sums of rows that were finished before.
    void recall(block& r, const T* sums) const {
        for (index_t l = 0; l < r.at.size(); ++l) {
            const T* sum = sums + 2 * ((r.at.b * x.H() + r.at.h) * x.N() + r.at.first - r.at.shift + l);
            r.m[l] = sum[0];
            r.l[l] = sum[1];
        }
    }

    template <bool Rows>
    void observe(const block& r, source& tiles, const tile_plan<A, T>& plan, const space& s) const {
        const index_t g = r.at.h / x.group();
        const head_mask visible = mask_of(r.at.b, g);
        const head_score scored = score_of(r.at.b, g);
        tiles.load(plan, false);
        const index_t width = r.width(shape::lanes), size = shape::keys * shape::most_rows;
        for (int e = 0; e < plan.count; ++e) {
            with_packs(r.packs, [&](auto packs) {
                observe_block<A, T, Op, packs>(r, tiles.tile(), plan.at[e], x.D(), natural_factor(), scored, visible,
                                               weight, s.observed, size);
            });
            const observed<T> seen{r.at.b, r.at.h, r.at.first - r.at.shift,
                                   tiles.tile().keys.first + plan.at[e].block * shape::keys,
                                   static_cast<int>(r.at.size()), plan.at[e].count, width, s.observed,
                                   s.observed + size, s.observed + 2 * size, s.observed + 3 * size};
            each_probe<Rows>([&](const auto& probe) { probe.observe(seen); });
        }
    }
};

}  // namespace heed::inline HEED_ABI::detail
