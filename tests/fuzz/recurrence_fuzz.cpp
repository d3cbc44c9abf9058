// libFuzzer: recurrences over shapes, strides, types, gates, forms, packed sequences and states, against the
// definition.
//
// Data come from seeds, so the bytes are all structure. Operands and scratch end where their allocations do, for ASan
// to see a step too far. Bad shapes must be refused by heed's exceptions, with the output untouched.
#include <cstdio>
#include <cstdlib>

#include "decisions.hpp"
#include "recurrence_data.hpp"

using namespace test;

namespace {

struct scene {
    recurrence_sizes s{};
    index_t chunk = 0;  // 0: token by token
    std::vector<index_t> offsets;
    double gates = 1;  // what logs of gates are multiplied by
    layout rows;

    index_t sequences() const { return offsets.empty() ? s.B : static_cast<index_t>(offsets.size()) - 1; }
};

[[noreturn]] void fail(const scene& x, const char* what, double got = 0, double want = 0, double bound = 0) {
    std::fprintf(stderr,
                 "%s: got %g, defined as %g, bound %g\nB%td H%td,%td,%td N%td D%td E%td updates %td gates of %td heads "
                 "times %g chunk %td sequences %td\n",
                 what, got, want, bound, x.s.B, x.s.Hq, x.s.Hk, x.s.Hv, x.s.N, x.s.D, x.s.E, x.s.steps, x.s.gates,
                 x.gates, x.chunk, x.sequences());
    std::abort();
}

/// The outputs and states of the definition, in the arithmetic of R.
template <class R>
struct definition {
    tensor<R> o, state;

    template <class T, class S>
    definition(const recurrence_data<T>& x, const ref::recurrence_options<R>& with, const tensor<S>& from)
        : o({x.s.B, x.s.Ho(), x.s.N, x.s.E}), state(from.shape()) {
        state.each(
            [&](index_t b, index_t h, index_t d, index_t e) { state(b, h, d, e) = static_cast<R>(from(b, h, d, e)); });
        ref::naive_recurrence<R>(x.q.v(), x.k.v(), x.v.v(), o.v(), with, state.v());
    }
};

/// No row may be further off than twice the naive loop's worst, and the roundings of the largest sums of magnitudes.
template <class T, class G, class N, class E>
void compare(const scene& x, const char* what, const tensor<G>& got, const tensor<N>& naive, const tensor<E>& exact,
             double sums) {
    double naive_error = 0;
    const auto finite = [](auto y) { return std::isfinite(static_cast<double>(y)); };
    exact.each([&](index_t b, index_t h, index_t n, index_t e) {
        if (finite(exact(b, h, n, e)) && finite(naive(b, h, n, e)))
            naive_error = std::max(naive_error, std::abs(static_cast<double>(naive(b, h, n, e) - exact(b, h, n, e))));
    });
    const double allowed = 2 * naive_error + (16 * epsilon<T> + (std::is_same_v<G, T> ? 0 : epsilon<G>)) * sums;
    exact.each([&](index_t b, index_t h, index_t n, index_t e) {
        const auto y = static_cast<double>(got(b, h, n, e)), z = static_cast<double>(exact(b, h, n, e));
        if (finite(z) && !finite(naive(b, h, n, e))) return;  // beyond the range of T
        if (std::isnan(y) != std::isnan(z)) fail(x, what, y, z);
        if (finite(z) && !(std::abs(y - z) <= allowed)) fail(x, what, y, z, allowed);
    });
}

template <class X>
double largest(const tensor<X>& t) {
    double most = 0;
    t.each([&](index_t b, index_t h, index_t n, index_t e) {
        const auto y = static_cast<double>(t(b, h, n, e));
        if (std::isfinite(y)) most = std::max(most, std::abs(y));
    });
    return most;
}

/// Spoils one of q, k, v and o, to something that does not fit.
template <class Q, class O>
void spoil(decisions& d, view<Q>& q, view<Q>& k, view<Q>& v, view<O>& o) {
    const auto axis = static_cast<std::size_t>(d.below(4));
    const auto change = [&](auto& y) { y.shape[axis] += axis == 1 ? 7 * y.shape[1] + 5 : 1; };
    switch (d.below(4)) {
        case 0:
            return change(q);
        case 1:
            return change(k);
        case 2:
            return change(v);
        default:
            return change(o);
    }
}

/// A recurrence by the policies against the definition of `parts`.
template <class T, class... P>
void meet(decisions& d, const scene& x, const recurrence_data<T>& data, unsigned parts, const P&... policies) {
    using S = accumulator<T>;
    using R = std::conditional_t<std::is_same_v<S, double>, long double, double>;
    const index_t rows = parts & turning ? 2 * x.s.D : x.s.D;
    const extents<4> shape{x.sequences(), x.s.Hs(), rows, x.s.E};
    const auto from = d.one_in(2) ? constant<S>(shape, 0) : normal<S>(shape, d.seed());
    state<S> carried(shape[0], shape[1], shape[2], shape[3]);
    carried.assign(from.v());
    tensor<T> o({x.s.B, x.s.Ho(), x.s.N, x.s.E}, x.rows);
    view<const T> q = data.q.v(), k = data.k.v(), v = data.v.v();
    view<T> to = o.v();
    const bool spoilt = d.one_in(8);
    if (spoilt) spoil(d, q, k, v, to);
    const auto run = [&](const auto& form) {
        in_exact_scratch([&](const auto& context) { recurrence(q, k, v, to, policies..., form, carried, context); });
    };
    try {
        x.chunk > 0 ? run(chunked{x.chunk}) : run(recurrent{});
    } catch (const shape_error&) {
        bool all = true;
        o.each(
            [&](index_t b, index_t h, index_t n, index_t e) { all &= std::isnan(static_cast<double>(o(b, h, n, e))); });
        if (!all) fail(x, "refused, but the output is touched");
        return;
    }
    if (spoilt) fail(x, "a bad shape is taken");
    if (!o.poisoned_outside()) fail(x, "written beside the output");
    const auto defined = [&](auto real, unsigned of) {
        auto with = data.defined(of)(real);
        with.offsets = x.offsets;
        return with;
    };
    const definition<R> exact(data, defined(R{}, parts), from);
    const definition<S> naive(data, defined(S{}, parts), from);
    // What erases takes away no more than its own size: the sums are those of what is written, and of what was there.
    auto sizes = data;
    for (auto* t : {&sizes.q, &sizes.k, &sizes.v, &sizes.a, &sizes.b})
        t->each([&](index_t b, index_t h, index_t n, index_t e) {
            (*t)(b, h, n, e) = static_cast<T>(std::abs(static_cast<double>((*t)(b, h, n, e))));
        });
    auto start = from;
    start.each([&](index_t b, index_t h, index_t n, index_t e) { start(b, h, n, e) = std::abs(start(b, h, n, e)); });
    auto additive = sizes.defined(parts & ~(delta | turning | with_bonus))(R{});
    additive.offsets = x.offsets;
    if (parts & with_bonus)
        additive.bonus = [&](index_t h, index_t c) { return std::abs(defined(R{}, with_bonus).bonus(h, c)); };
    if (parts & turning) start = constant<S>({shape[0], shape[1], x.s.D, x.s.E}, 2 * largest(start));
    const definition<R> sums(sizes, additive, start);
    const double erased = parts & delta ? 4 : 1;
    compare<S>(x, "o", o, naive.o, exact.o, erased * largest(sums.o));
    compare<S>(x, "the state", copied(carried.values()), naive.state, exact.state, erased * largest(sums.state));
}

/// The kinds of recurrence. Each is compiled in two forms, which takes seconds: orders and packing take turns.
template <class T>
void run(decisions& d, scene& x, index_t kind) {
    if (kind < 8) x.s.steps = 1;
    recurrence_data<T> data(x.s, d.seed(), x.rows);
    for (auto* g : {&data.token, &data.channel, &data.column})
        g->each([&](index_t b, index_t h, index_t n, index_t e) {
            (*g)(b, h, n, e) = static_cast<T>(static_cast<double>((*g)(b, h, n, e)) * x.gates);
        });
    const packed side_by_side{std::span<const index_t>(x.offsets)};
    const auto with = [&](unsigned parts, const auto&... policies) { meet(d, x, data, parts, policies...); };
    if constexpr (!std::is_same_v<T, float>) return with(by_token | delta, data.token_gate(), data.delta_update());
    switch (kind) {
        case 0:
            return with(plain);
        case 1:
            return with(by_head | backwards, data.head_gate(), reversed{});
        case 2:
            return with(by_token | delta, data.token_gate(), data.delta_update());
        case 3:
            return with(by_channel | with_bonus, data.channel_gate(), data.bonus_read());
        case 4:
            return with(by_value | before, data.value_gate(), read_before{});
        case 5:
            return with(turning, data.complex_gate());
        case 6:
            return with(by_channel | ranked | backwards, data.channel_gate(), data.low_rank_update(), reversed{});
        case 7:
            return with(delta | all_at_once, data.delta_update(), non_causal{});
        case 8:
            return with(by_token | delta, data.token_gate(), data.householder_update());
        case 9:
            return with(by_channel | delta | before, data.channel_gate(), data.householder_update(), read_before{});
        case 10:
            return with(by_value | delta, data.value_gate(), data.householder_update(), side_by_side);
        default:
            return with(by_token, data.token_gate(), side_by_side);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decisions d(data, size);
    scene x;
    const index_t kind = d.below(12);
    const index_t groups = d.between(1, 3);
    x.s = {d.between(0, 2),  groups,          groups, groups, d.one_in(8) ? 0 : d.between(1, 80),
           d.between(0, 40), d.between(0, 40)};
    x.s.steps = d.between(1, 4);
    switch (d.below(4)) {
        case 0:
            x.s.Hq *= d.between(1, 3);
            break;
        case 1:
            x.s.Hk = 1;
            break;
        case 2:
            x.s.Hv = 1;
            break;
        default:
            break;
    }
    x.s.gates = d.one_in(2) ? 1 : groups;
    x.chunk = d.one_in(3) ? 0 : d.between(1, 100);
    const double factors[] = {1, 0, 30, 1e4};
    x.gates = factors[d.below(4)];
    x.rows = d.any_layout();
    if (kind >= 10) {
        x.s.B = 1;
        x.offsets = {0, x.s.N};
        for (index_t cuts = d.below(4); cuts > 0; --cuts) x.offsets.push_back(d.between(0, x.s.N));
        std::sort(x.offsets.begin(), x.offsets.end());
    }
    switch (kind == 2 ? d.below(3) : 0) {
        case 0:
            run<float>(d, x, kind);
            break;
        case 1:
            run<double>(d, x, kind);
            break;
        default:
            run<bf16>(d, x, kind);
    }
    return 0;
}
