// What the fuzz targets of recurrences share: the scene of a call, the definition, and what may differ from it.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "decisions.hpp"
#include "recurrence_data.hpp"

namespace test {

struct scene {
    recurrence_sizes s{};
    index_t chunk = 0;  // 0: token by token, below: whichever heed takes
    std::vector<index_t> offsets;
    double gates = 1;  // what logs of gates are multiplied by
    layout rows;

    index_t sequences() const { return offsets.empty() ? s.B : static_cast<index_t>(offsets.size()) - 1; }
};

[[noreturn]] inline void fail(const scene& x, const char* what, double got = 0, double want = 0, double bound = 0) {
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
        : o({x.s.B, x.s.Ho(), x.q.shape()[2], x.s.E}), state(from.shape()) {
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

/// Operands by their sizes: every element its magnitude.
template <class T>
recurrence_data<T> magnitudes(recurrence_data<T> data) {
    for (auto* t : {&data.q, &data.k, &data.v, &data.a, &data.b})
        t->each([&](index_t b, index_t h, index_t n, index_t e) {
            (*t)(b, h, n, e) = static_cast<T>(std::abs(static_cast<double>((*t)(b, h, n, e))));
        });
    return data;
}

/// A recurrence of some data: what of them it uses, and what else its definition says.
template <class T, class Change>
struct recurrence_case {
    const recurrence_data<T>& data;
    unsigned parts;
    Change change;  // of the options of the definition
    using S = accumulator<T>;
    using R = std::conditional_t<std::is_same_v<S, double>, long double, double>;

    template <class Real>
    auto options(const scene& x, unsigned of) const {
        auto with = data.defined(of)(Real{});
        with.offsets = x.offsets;
        if (of & all_at_once) with.updates = x.s.steps;
        return with;
    }
    template <class Real>
    auto defined(const scene& x) const {
        auto with = options<Real>(x, parts);
        change(with);
        return with;
    }
    index_t rows(const scene& x) const { return (parts & turning) && !defined<R>(x).complex_rows ? 2 * x.s.D : x.s.D; }
    bool normalised(const scene& x) const { return defined<R>(x).normalised; }

    /// A state to begin with; z, where there is one, is its last column, and positive.
    tensor<S> beginning(decisions& d, const scene& x) const {
        const index_t columns = x.s.E + normalised(x);
        const extents<4> shape{x.sequences(), x.s.Hs(), rows(x), columns};
        auto from = d.one_in(2) ? constant<S>(shape, 0) : normal<S>(shape, d.seed());
        from.each([&](index_t b, index_t h, index_t r, index_t e) {
            if (e == x.s.E && from(b, h, r, e) != 0) from(b, h, r, e) = 1 + std::abs(from(b, h, r, e));
        });
        return from;
    }
    /// Outputs and a state against the definition.
    void judge(const scene& x, const tensor<S>& from, const tensor<T>& o, const tensor<S>& state) const {
        const definition<R> exact(data, defined<R>(x), from);
        const definition<S> naive(data, defined<S>(x), from);
        // What erases takes away no more than its own size: the sums are those of what is written, and of what was.
        auto sizes = magnitudes(data);
        const bool paired = defined<R>(x).complex_rows;
        for (auto* t : {&sizes.q, &sizes.k})
            if (paired)  // a product meets the real and the imaginary part of both
                t->each([&](index_t b, index_t h, index_t n, index_t e) {
                    if (e < x.s.D / 2)
                        (*t)(b, h, n, e) = (*t)(b, h, n, e + x.s.D / 2) =
                            (*t)(b, h, n, e) + (*t)(b, h, n, e + x.s.D / 2);
                });
        auto start = magnitudes_of(from);
        if (parts & turning) start = constant<S>({from.shape()[0], from.shape()[1], x.s.D, x.s.E}, 2 * largest(start));
        auto additive = options<R>(x, parts & ~(delta | turning | with_bonus));
        const auto said = defined<R>(x);  // of magnitudes, features are at least what they are of numbers
        additive.query_features = said.query_features;
        additive.key_features = said.key_features;
        additive.scale = said.scale;
        additive.normalised = said.normalised;
        if (parts & with_bonus)
            additive.bonus = [&](index_t h, index_t c) { return std::abs(options<R>(x, with_bonus).bonus(h, c)); };
        const definition<R> sums(sizes, additive, start);
        const double erased = parts & delta ? 4 : 1;
        // A weighted mean, whose weights are positive, is as exact as what it is of.
        const double of_outputs = normalised(x) ? largest(data.v) + largest(from) : largest(sums.o);
        compare<S>(x, "o", o, naive.o, exact.o, erased * of_outputs);
        compare<S>(x, "the state", state, naive.state, exact.state, erased * largest(sums.state));
    }

private:
    static tensor<S> magnitudes_of(tensor<S> x) {
        x.each([&](index_t b, index_t h, index_t d, index_t e) { x(b, h, d, e) = std::abs(x(b, h, d, e)); });
        return x;
    }
};

template <class T, class Change>
recurrence_case(const recurrence_data<T>&, unsigned, Change) -> recurrence_case<T, Change>;

/// What a state holds, z as its last column if it is asked for.
template <class S>
tensor<S> contents(const state<S>& s, bool z) {
    const auto [B, H, D, E] = s.shape();
    tensor<S> t({B, H, D, E + z});
    t.each([&, E = E](index_t b, index_t h, index_t d, index_t e) {
        t(b, h, d, e) = e < E ? s.values()(b, h, d, e) : s.key_sums()(b, h, d);
    });
    return t;
}
template <class S>
state<S> state_of(const tensor<S>& from, index_t E) {
    state<S> s(from.shape()[0], from.shape()[1], from.shape()[2], E);
    from.each([&](index_t b, index_t h, index_t d, index_t e) {
        (e < E ? s.values()(b, h, d, e) : s.key_sums()(b, h, d)) = from(b, h, d, e);
    });
    return s;
}

/// The form a scene has, as a policy.
template <class F>
void in_form(const scene& x, const F& run) {
    if (x.chunk > 0) return run(chunked{x.chunk});
    x.chunk < 0 ? run(fastest_form{}) : run(recurrent{});
}

/// A recurrence by the policies against its definition.
template <class T, class Change, class... P>
void meet(decisions& d, const scene& x, const recurrence_case<T, Change>& c, const P&... policies) {
    const auto from = c.beginning(d, x);
    auto carried = state_of(from, x.s.E);
    tensor<T> o({x.s.B, x.s.Ho(), c.data.q.shape()[2], x.s.E}, x.rows);
    view<const T> q = c.data.q.v(), k = c.data.k.v(), v = c.data.v.v();
    view<T> to = o.v();
    const bool spoilt = d.one_in(8);
    if (spoilt) spoil(d, q, k, v, to);
    try {
        in_form(x, [&](const auto& form) {
            in_exact_scratch(
                [&](const auto& context) { recurrence(q, k, v, to, policies..., form, carried, context); });
        });
    } catch (const shape_error& e) {
        if (!spoilt) fail(x, e.what());
        bool all = true;
        o.each(
            [&](index_t b, index_t h, index_t n, index_t e) { all &= std::isnan(static_cast<double>(o(b, h, n, e))); });
        if (!all) fail(x, "refused, but the output is touched");
        return;
    }
    if (spoilt) fail(x, "a bad shape is taken");
    if (!o.poisoned_outside()) fail(x, "written beside the output");
    c.judge(x, from, o, contents(carried, c.normalised(x)));
}
template <class T, class... P>
void meet(decisions& d, const scene& x, const recurrence_data<T>& data, unsigned parts, const P&... policies) {
    meet(d, x, recurrence_case{data, parts, [](auto&) {}}, policies...);
}

/// A scene of the fuzzer's bytes.
inline scene any_scene(decisions& d) {
    scene x;
    const index_t groups = d.between(1, 3);
    const auto width = [&] { return d.one_in(8) ? d.between(0, 150) : d.between(0, 40); };
    x.s = {d.between(0, 2), groups, groups, groups, d.one_in(8) ? 0 : d.between(1, 80), width(), width()};
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
    x.chunk = d.one_in(3) ? -d.below(2) : d.between(1, 100);
    const double factors[] = {1, 0, 30, 1e4};
    x.gates = factors[d.below(4)];
    x.rows = d.any_layout();
    return x;
}

/// Puts all tokens into one row and cuts it into sequences.
inline void put_in_one_row(decisions& d, scene& x) {
    x.s.B = 1;
    x.offsets = {0, x.s.N};
    for (index_t cuts = d.below(4); cuts > 0; --cuts) x.offsets.push_back(d.between(0, x.s.N));
    std::sort(x.offsets.begin(), x.offsets.end());
}

/// The data of a scene.
template <class T>
recurrence_data<T> data_of(decisions& d, const scene& x) {
    recurrence_data<T> data(x.s, d.seed(), x.rows);
    for (auto* g : {&data.token, &data.channel, &data.column})
        g->each([&](index_t b, index_t h, index_t n, index_t e) {
            (*g)(b, h, n, e) = static_cast<T>(static_cast<double>((*g)(b, h, n, e)) * x.gates);
        });
    return data;
}

}  // namespace test
