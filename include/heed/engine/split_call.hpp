// The tasks of attention with few queries: parts of keys, then their merge; see split.hpp.
#pragma once

#include "../core/context.hpp"
#include "../policy/probe.hpp"
#include "../simd/convert.hpp"
#include "split.hpp"

namespace heed::inline HEED_ABI::detail {

/// Runs an attention_call. One task walks all parts of a head where there are heads enough for all workers, else every
/// part is a task; the parts, their order and so the bits are the same.
template <class A, class T, class Q, class O, class Call, class Source, class Mask, class Score, class Weight>
class split_call {
public:
    using pass = split_pass<A, T, Source, Mask, Score, Weight>;

    split_call(const Call& call, const Source& source, const Mask& mask, const Score& score, const Weight& weight)
        : c_(call), source_(source), mask_(mask), score_(score), weight_(weight),
          shape_{call.x.N(), call.x.group(), call.x.D(), call.x.E(),
                 stretch_rows<Source>::bytes_copied(source)}, parts_(split_cut::most(call.x.M())) {}

    template <executor E>
    std::size_t scratch_bytes(E& pool) const {
        const plan_ p = plan(pool);
        carver all;
        all.take<T>(kept_logits(p));
        for (index_t t = 0; t < p.kept; ++t) partials(all);
        for (index_t w = 0; w < p.crew; ++w) worker_scratch(all, shape_);
        return all.used();
    }

    /// sums: where the rows' references and weights are left for probes, (B, H, N, 2); not touched without probes.
    template <executor E>
    void run(E& pool, std::byte* memory, T* sums) const {
        const plan_ p = plan(pool);
        carver all(memory);
        T* const logits = all.take<T>(kept_logits(p));
        memory += all.used();
        carver kept, one;
        if (p.kept > 0) partials(kept);
        worker_scratch(one, shape_);
        const auto kept_at = [&](index_t t) {
            carver at(memory + static_cast<std::size_t>(t) * kept.used());
            return partials(at);
        };
        const auto scratch_of = [&](index_t w) {
            carver at(memory + static_cast<std::size_t>(p.kept) * kept.used() + static_cast<std::size_t>(w) * one.used());
            return worker_scratch(at, shape_);
        };
        const auto logits_at = [&](index_t place) {
            return keeps_logits ? logits + place * shape_.rows() * stride() : nullptr;
        };
        const auto attend = [&](index_t head, index_t part, pass& over, row_partials<T>& out, T* keep) {
            const index_t keys = keys_of(head);
            const split_cut cut(keys);
            over.attend(cut.keys_of(part, keys), cut.stretch, out, keep, stride());
        };
        if (p.kept == 0) {
            for_tasks(pool, heads(), [&](index_t t, index_t w) {
                worker_scratch s = scratch_of(w);
                pass over = start(t, s.inner);
                attend(t, 0, over, s.sum, logits_at(w));
                for (index_t part = 1; part < parts_of(t); ++part) {
                    attend(t, part, over, s.next, logits_at(w));
                    merge(s.sum, s.next);
                }
                finish(t, s.sum, sums);
                for (index_t r = 0; r < shape_.group && keeps_logits; ++r) {
                    const index_t h = t * shape_.group + r;
                    observe(h, logits_at(w) + r * shape_.N * stride(), sums + 2 * h * shape_.N);
                }
            });
        } else {
            for_tasks(pool, heads() * parts_, [&](index_t t, index_t w) {
                const index_t head = t / parts_, part = t % parts_;
                if (part > 0 && part >= parts_of(head)) return;
                const worker_scratch s = scratch_of(w);
                pass over = start(head, s.inner);
                row_partials<T> out = kept_at(t);
                attend(head, part, over, out, logits_at(head));
            });
            for_tasks(pool, heads(), [&](index_t t, index_t) {
                row_partials<T> sum = kept_at(t * parts_);
                for (index_t part = 1; part < parts_of(t); ++part) merge(sum, kept_at(t * parts_ + part));
                finish(t, sum, sums);
            });
            if constexpr (keeps_logits)
                for_tasks(pool, c_.x.B() * c_.x.H(), [&](index_t h, index_t) {
                    observe(h, logits + h * shape_.N * stride(), sums + 2 * h * shape_.N);
                });
        }
    }

private:
    struct worker_scratch {
        typename pass::space inner;
        row_partials<T> sum, next;
        worker_scratch(carver& from, const typename pass::shape& x)
            : inner(from, x), sum(from, x.rows(), x.o_width()), next(from, x.rows(), x.o_width()) {}
    };
    struct plan_ {
        index_t crew, kept;  // workers; partials that outlive their task
    };
    template <executor E>
    plan_ plan(E& pool) const {
        const index_t crew = workers(pool, heads() * parts_);
        const bool whole = crew == 1 || parts_ <= 1 || heads() >= 4 * crew;
        return {crew, whole ? 0 : heads() * parts_};
    }
    /// Probes of visible logits read what the pass keeps; those of hidden ones walk over the keys again.
    static constexpr bool keeps_logits = Call::observed_at_all && !Call::hidden_observed;
    index_t stride() const { return round_up(c_.x.M(), pass::tile); }
    /// Those of the head a worker is at, which then are in its caches; where heads are met in parts, of all.
    index_t kept_logits(const plan_& p) const {
        return keeps_logits ? (p.kept > 0 ? heads() : p.crew) * shape_.rows() * stride() : 0;
    }
    index_t keys_of(index_t t) const { return c_.x.keys(t / c_.x.G(), t % c_.x.G()); }
    index_t parts_of(index_t t) const { return split_cut(keys_of(t)).parts; }
    row_partials<T> partials(carver& from) const { return {from, shape_.rows(), shape_.o_width()}; }
    index_t heads() const { return c_.x.B() * c_.x.G(); }

    pass start(index_t t, const typename pass::space& s) const {
        const index_t b = t / c_.x.G(), g = t % c_.x.G();
        const bool base_two = Weight::normalised && !pass::maps_logits;
        const T factor = static_cast<T>(c_.factor * (base_two ? log2_e<double> : 1.0));
        pass over(source_, mask_, score_, weight_, shape_, b, g, c_.shift(b), factor, s);
        over.load_queries(c_.x.q);
        return over;
    }
    void merge(row_partials<T>& sum, const row_partials<T>& next) const {
        sum.merge(next, shape_.rows(), shape_.o_width(), Weight::normalised);
    }
    void finish(index_t t, row_partials<T>& sum, T* sums) const {
        const index_t b = t / c_.x.G(), g = t % c_.x.G();
        for (index_t r = 0; r < shape_.rows(); ++r) {
            const index_t h = g * shape_.group + r / shape_.N, n = r % shape_.N;
            const closed_row<T> row(weight_, h, sum.m[r], sum.l[r], sum.seen[r] != T(0));
            T* const o = sum.o + r * shape_.o_width();
            arrange_back<typename pass::value_products>(o, shape_.o_width());
            for (index_t e = 0; e < shape_.E; ++e) o[e] *= row.output;
            if constexpr (requires { source_.turn_output(o); }) source_.turn_output(o);
            const view<O>& to = c_.x.o;
            narrow_row<A>(o, shape_.E, to.data + b * to.strides[0] + h * to.strides[1] + n * to.strides[2], to.strides[3]);
            c_.report(b, h, n, row);
            if constexpr (Call::observed_at_all) {
                T* const kept = sums + 2 * ((b * c_.x.H() + h) * c_.x.N() + n);
                kept[0] = row.m;
                kept[1] = row.weight;
            }
        }
    }

    /// Shows the probes the kept logits (N, stride) of one head, row by row; sums (N, 2).
    void observe(index_t t, const T* logits, const T* sums) const {
        using P = typename pass::P;
        constexpr index_t tile = 512, L = pass::L;  // keys at once
        const index_t b = t / c_.x.H(), h = t % c_.x.H(), keys = c_.x.keys(b, h / shape_.group);
        const auto start = [&](range of) {
            c_.template each_probe<false>([&](const auto& probe) {
                for (index_t j = of.first; j < of.last; ++j) probe.start_key(b, h, j);
            });
        };
        start({keys, c_.x.M()});
        alignas(64) T masked[tile], probability[tile];
        for (index_t n = 0; n < shape_.N; ++n) {
            c_.template each_probe<true>([&](const auto& probe) { probe.start(b, h, n); });
            const T* const row = logits + n * stride();
            const P m(sums[2 * n]), by(sums[2 * n + 1]), hidden(-std::numeric_limits<T>::infinity());
            for (index_t j = 0; j < keys; j += tile) {
                const index_t count = std::min(tile, keys - j);
                if (n == 0) start({j, j + count});
                for (index_t c = 0; c < count; c += L) {
                    const P x = load_aligned<P>(row + j + c);
                    if constexpr (Weight::normalised) {
                        store_aligned(masked + c, x * P(ln_2<T>));
                        store_aligned(probability + c, select(x == hidden, P(T(0)), exp2_nonpositive(x - m) * by));
                    } else {
                        store_aligned(masked + c, x);
                        store_aligned(probability + c, select(x == hidden, P(T(0)), weight_(x)));
                    }
                }
                const observed<T> seen{b, h, n, j, 1, static_cast<int>(count), 1, nullptr, nullptr, masked, probability};
                c_.template each_probe<true>([&](const auto& probe) { probe.observe(seen); });
                c_.template each_probe<false>([&](const auto& probe) { probe.observe(seen); });
            }
        }
    }

    const Call& c_;
    const Source& source_;
    const Mask& mask_;
    const Score& score_;
    const Weight& weight_;
    typename pass::shape shape_;
    index_t parts_;
};

}  // namespace heed::inline HEED_ABI::detail
