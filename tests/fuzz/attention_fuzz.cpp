// libFuzzer: attention over shapes, strides, types, offsets and random compositions of policies, against the definition.
//
// Data come from seeds, so the bytes are all structure. Operands and scratch end where their allocations do, for ASan to
// see a step too far. Bad shapes and parameters must be refused by heed's exceptions, with the output untouched.
#include <cstdio>
#include <cstdlib>
#include <heed/ref/attention.hpp>

#include "random_policies.hpp"

using namespace test;

namespace {

struct scene {
    index_t B, H, G, N, M, D, E, shift;
    any_mask mask = everything{};
    any_score score;
    std::vector<float> sink;
    double spread = 1;
    bool nan_key = false, nan_value = false;
    index_t bad = 0;  // the key that holds the NaN
};

[[noreturn]] void fail(const scene& s, const char* what, double got = 0, double want = 0, double bound = 0) {
    std::fprintf(stderr,
                 "%s: got %g, defined as %g, bound %g\nB%td H%td G%td N%td M%td D%td E%td offset %td score %td of %g "
                 "sinks %zu spread %g\n",
                 what, got, want, bound, s.B, s.H, s.G, s.N, s.M, s.D, s.E, s.shift, s.score.kind, s.score.c,
                 s.sink.size(), s.spread);
    std::abort();
}

/// What a kernel of type T may differ by: roundings of the logits, spread over what the row weighs.
struct bounds {
    double logit = 0;   // largest sum of |q k| scaled, and largest score
    double weighed = 0;  // largest sum of |p v|
    double value = 0;   // largest |v|
};

template <class Weight, class Real>
ref::options<Real> defined(const scene& s) {
    ref::options<Real> with;
    with.offset = s.shift;
    with.visible = [&s](index_t b, index_t h, index_t row, index_t i, index_t j) {
        return s.mask.allows({b, h, row, i, j});
    };
    if (s.score.kind)
        with.score = [&s](Real x, index_t b, index_t h, index_t row, index_t i, index_t j) {
            return s.score(x, where{b, h, row, i, j});
        };
    if constexpr (std::is_same_v<Weight, relu_squared>) with.weight = [](Real x) { return x > 0 ? x * x : Real(0); };
    if constexpr (std::is_same_v<Weight, sink>) with.sink.assign(s.sink.begin(), s.sink.end());
    return with;
}

template <class R, class Q, class K, class V>
bounds measure(const scene& s, view<Q> q, view<K> k, view<V> v, const ref::options<R>& with) {
    bounds out;
    tensor<R> a(q.shape), b(k.shape), c(v.shape), o({s.B, s.H, s.N, s.E}), raw({s.B, s.H, s.N, s.M}), scored(raw);
    const auto absolute = [](auto& to, const auto& from) {
        to.each([&](index_t x, index_t h, index_t n, index_t d) { to(x, h, n, d) = std::abs(static_cast<R>(from(x, h, n, d))); });
    };
    const auto largest = [](const auto& t) {
        double most = 0;
        t.each([&](index_t x, index_t h, index_t n, index_t d) {
            if (std::isfinite(t(x, h, n, d))) most = std::max(most, std::abs(static_cast<double>(t(x, h, n, d))));
        });
        return most;
    };
    absolute(a, q), absolute(b, k), absolute(c, v);
    ref::record<R> to;
    to.scored = scored;
    ref::naive_attention<R>(q, k, c.v(), o.v(), with, to);
    out.weighed = largest(o);
    out.value = largest(c);
    to = {};
    to.raw = raw;
    auto plain = with;
    plain.score = {};
    ref::naive_attention<R>(a.v(), b.v(), c.v(), o.v(), plain, to);
    out.logit = largest(raw) + largest(scored);
    return out;
}

template <class Weight, class T, class Q, class K, class V, class O>
void compare(const scene& s, view<Q> q, view<K> k, view<V> v, const tensor<O>& got, const tensor<T>* sums) {
    using R = std::conditional_t<std::is_same_v<T, double>, long double, double>;
    const auto with = defined<Weight, R>(s);
    tensor<R> exact(got.shape()), lse({s.B, s.H, s.N, 1});
    tensor<T> naive(got.shape());
    ref::record<R> to;
    to.lse = flat(lse);
    ref::naive_attention<R>(q, k, v, exact.v(), with, to);
    ref::naive_attention<T>(q, k, v, naive.v(), defined<Weight, T>(s));
    const bounds most = measure<R>(s, q, k, v, with);
    const bool all_bf16 = std::is_same_v<Q, const bf16> && std::is_same_v<V, const bf16> && std::is_same_v<O, bf16>;
    const double logit_error = epsilon<T> * (4 + static_cast<double>(s.D) / 8) * (most.logit + 1);
    double allowed = most.weighed * (16 * epsilon<T> + (std::is_same_v<O, T> ? 0 : epsilon<O>) +
                                     (all_bf16 ? 2 * epsilon<bf16> : 0));
    if (std::is_same_v<O, f16>) allowed += 0x1p-25;  // half of the least number
    if (std::is_same_v<Weight, relu_squared>)
        allowed += static_cast<double>(s.M) * 4 * most.logit * logit_error * most.value;
    else
        allowed += 4 * logit_error * most.weighed;
    double naive_error = 0;
    const auto finite = [](auto x) { return std::isfinite(static_cast<double>(x)); };
    exact.each([&](index_t b, index_t h, index_t n, index_t e) {
        if (finite(exact(b, h, n, e)) && finite(naive(b, h, n, e)))
            naive_error = std::max(naive_error, std::abs(static_cast<double>(naive(b, h, n, e) - exact(b, h, n, e))));
    });
    exact.each([&](index_t b, index_t h, index_t n, index_t e) {
        const auto x = static_cast<double>(got(b, h, n, e)), y = static_cast<double>(exact(b, h, n, e));
        if (finite(y) && !finite(naive(b, h, n, e))) return;  // beyond the range of T
        if (std::isnan(x) != std::isnan(y)) fail(s, "o", x, y);
        if (finite(y) && !(std::abs(x - y) <= 2 * naive_error + allowed)) fail(s, "o", x, y, 2 * naive_error + allowed);
    });
    if (sums)
        lse.each([&](index_t b, index_t h, index_t n, index_t) {
            const auto x = static_cast<double>((*sums)(b, h, n, 0)), y = static_cast<double>(lse(b, h, n, 0));
            if (std::isnan(x) != std::isnan(y) || (std::isinf(y) && x != y) ||
                (finite(y) && !(std::abs(x - y) <= 4 * logit_error + 16 * epsilon<T> * (1 + std::abs(y)))))
                fail(s, "lse", x, y, 4 * logit_error);
        });
}

/// Spoils one operand's view; always to something that does not fit.
template <class Q, class K, class V, class O>
void spoil(decisions& d, view<Q>& q, view<K>& k, view<V>& v, view<O>& o) {
    const auto axis = static_cast<std::size_t>(d.below(4));
    const auto change = [&](auto& x) {
        const index_t by[] = {1, -1, 7, -x.shape[axis] - 1};
        x.shape[axis] += by[d.below(4)];
    };
    switch (d.below(4)) {
        case 0: return change(q);
        case 1: return change(k);
        case 2: return change(v);
        default: return change(o);
    }
}

template <class T>
bool untouched(const tensor<T>& o) {
    bool all = true;
    o.each([&](index_t b, index_t h, index_t n, index_t e) { all &= std::isnan(static_cast<double>(o(b, h, n, e))); });
    return all;
}

/// The engine with exactly the scratch it asks for.
template <class Q, class K, class V, class O, class... P>
void attend(view<Q> q, view<K> k, view<V> v, view<O> o, const P&... policies) {
    in_exact_scratch([&](const auto& context) { attention(q, k, v, o, policies..., context); });
}

/// Every engine takes seconds to compile: only those of float are met with a score, without one, and with another weight.
template <class Q, class K>
constexpr bool with_score = std::is_same_v<Q, K> && !std::is_same_v<Q, bf16>;
template <class Q, class K>
constexpr bool without_score = std::is_same_v<Q, float> || std::is_same_v<Q, bf16>;

template <class Q, class K, class V, class O, class Weight>
void run(decisions& d, scene& s, const Weight& weight) {
    using T = accumulator<Q, K, V, O>;
    const std::uint64_t seed = d.seed();
    const auto q = normal<Q>({s.B, s.H, s.N, s.D}, seed, s.spread, d.any_layout());
    auto k = normal<K>({s.B, s.G, s.M, s.D}, seed + 1, s.spread, d.any_layout());
    auto v = normal<V>({s.B, s.G, s.M, s.E}, seed + 2, 1, d.any_layout());
    tensor<O> o({s.B, s.H, s.N, s.E}, d.any_layout());
    const auto row = [&](auto& t) {
        t.each([&](index_t b, index_t g, index_t j, index_t e) {
            if (j == s.bad) t(b, g, j, e) = poison<std::remove_cvref_t<decltype(t(0, 0, 0, 0))>>();
        });
    };
    if (s.nan_key) row(k);
    if (s.nan_value) row(v);
    view<const Q> vq = std::as_const(q).v();
    view<const K> vk = std::as_const(k).v();
    view<const V> vv = std::as_const(v).v();
    view<O> vo = o.v();
    if (d.one_in(4) && s.M > 0) {  // keys backwards
        const auto turn = [](auto& x) {
            x.data += (x.shape[2] - 1) * x.strides[2];
            x.strides[2] = -x.strides[2];
        };
        turn(vk), turn(vv);
    }
    if (d.one_in(6)) vk.strides[0] = vv.strides[0] = 0;  // one batch for all
    if (d.one_in(6)) vv.strides[1] = 0;
    const bool spoilt = d.one_in(6);
    if (spoilt) spoil(d, vq, vk, vv, vo);
    tensor<T> sums({s.B, s.H, s.N, 1});
    if (!with_score<Q, K>) s.score.kind = 0;
    try {
        if constexpr (std::is_same_v<Weight, relu_squared>) {
            attend(vq, vk, vv, vo, s.mask, s.score, weight, offset{s.shift});
        } else {
            const bool plain = without_score<Q, K> && s.score.kind == 0;
            if constexpr (with_score<Q, K>)
                if (!plain) attend(vq, vk, vv, vo, s.mask, s.score, weight, offset{s.shift}, lse{flat(sums)});
            if constexpr (without_score<Q, K>)
                if (plain) attend(vq, vk, vv, vo, offset{s.shift}, lse{flat(sums)}, weight, s.mask);
        }
    } catch (const shape_error&) {
        if (!untouched(o)) fail(s, "refused, but the output is touched");
        return;
    } catch (const argument_error&) {
        if (!untouched(o)) fail(s, "refused, but the output is touched");
        return;
    }
    if (spoilt) fail(s, "a bad shape is taken");
    if (!o.poisoned_outside()) fail(s, "written beside the output");
    compare<Weight, T>(s, vq, vk, vv, o, std::is_same_v<Weight, relu_squared> ? nullptr : &sums);
}

template <class Q, class K, class V, class O>
void run(decisions& d, scene& s) {
    if constexpr (std::is_same_v<Q, float> && std::is_same_v<K, float>)
        if (!s.nan_key && !s.nan_value && d.one_in(4)) return run<Q, K, V, O>(d, s, relu_squared{});
    for (index_t h = 0; h < s.H; ++h) s.sink.push_back(static_cast<float>(d.between(-60, 60)) / 8);
    if (d.one_in(3)) s.sink.assign(s.sink.size(), -std::numeric_limits<float>::infinity());  // as if there were none
    if (d.one_in(40)) s.sink.push_back(0);
    run<Q, K, V, O>(d, s, sink{s.sink});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decisions d(data, size);
    scene s;
    s.B = d.between(0, 2);
    s.G = d.between(0, 3);
    s.H = s.G * d.between(1, 4);
    s.N = d.one_in(8) ? 0 : d.between(1, d.one_in(3) ? 8 : 110);  // often few queries, as when decoding
    s.M = d.one_in(8) ? 0 : d.between(1, 300);
    s.D = d.between(0, 40);
    s.E = d.between(0, 30);
    // The definition is slow: less of it where there is much.
    while (s.B * s.H * s.N * s.M * (s.D + s.E) > 300000) {
        if (s.H > s.G)
            s.H = s.G;
        else if (s.D + s.E > 24)
            s.D = s.D / 2, s.E = s.E / 2;
        else if (s.B * s.G > 1)
            s.B = s.G = s.H = 1;
        else
            s.N = s.N / 2;
    }
    s.shift = d.one_in(3) ? d.between(-200, 400) : s.M - s.N;
    s.spread = d.one_in(4) ? 4 : 1;
    s.score = {d.below(5), static_cast<double>(d.between(1, 40)) / 4};
    if (s.score.kind == 0 && d.one_in(10)) s.shift = (s.shift + 1) * (index_t(1) << 40);
    s.nan_key = d.one_in(8);
    s.nan_value = d.one_in(8);
    s.bad = d.below(s.M);
    mask_memory memory;
    s.mask = random_mask(d, {s.B, s.H, s.N, s.M}, memory);
    switch (d.below(5)) {
        case 0: run<float, float, float, float>(d, s); break;
        case 1: run<double, double, double, double>(d, s); break;
        case 2: run<bf16, bf16, bf16, bf16>(d, s); break;
        case 3: run<f16, f16, f16, f16>(d, s); break;
        default: run<float, bf16, f16, float>(d, s);
    }
    return 0;
}
