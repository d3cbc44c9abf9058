// heed_test: $<TARGET_OBJECTS:heed_replays>
// Cases of scans beyond those of tests/data: what their codes also take. Expected outputs are those of the lines of
// these codes, in loops.
#include "replay.hpp"
#include "random.hpp"
#include "written_case.hpp"

using namespace test;
using conformance::engine;

namespace {

using shape = std::vector<index_t>;

template <class T>
std::vector<T> numbers_of(const shape& s, std::uint64_t seed, double first = -1, double last = 1) {
    index_t n = 1;
    for (index_t extent : s) n *= extent;
    const counter_random random(seed);
    std::vector<T> x(static_cast<std::size_t>(n));
    for (index_t i = 0; i < n; ++i)
        x[static_cast<std::size_t>(i)] = static_cast<T>(first + (last - first) * random.uniform(number(i)));
    return x;
}
double silu_of(double x) { return x / (1 + std::exp(-x)); }

void expect_both(written_case& c, double (*replay)(golden_case&, engine)) {
    for (engine by : {engine::heed, engine::reference}) {
        SCOPED_TRACE(by == engine::heed ? "heed" : "ref");
        c.expect([&](golden_case& g) { replay(g, by); });
    }
}

/// What a case of selective_scan_ref gives beside u, delta, A, B and C.
struct selective_parts {
    bool softplus = false, bias = false, skip = false, gate = false, initial = false;
};

/// B and C of these shapes: [C, S], [B, S, L] or [B, G, S, L].
template <class T>
void expect_selective(const shape& in, const shape& out, const selective_parts& has) {
    constexpr index_t B = 2, C = 12, S = 3, L = 19;
    const auto u = numbers_of<T>({B, C, L}, 1), delta = numbers_of<T>({B, C, L}, 2, 0, 1),
               A = numbers_of<T>({C, S}, 3, -2, 0), b = numbers_of<T>(in, 4), c = numbers_of<T>(out, 5),
               D = numbers_of<T>({C}, 6), z = numbers_of<T>({B, C, L}, 7, -4, 4), bias = numbers_of<T>({C}, 8, 0, 1),
               first = numbers_of<T>({B, C, S}, 9);
    const auto shared = [](const std::vector<T>& x, const shape& of, index_t i, index_t ch, index_t s, index_t t) {
        const index_t G = of.size() == 4 ? of[1] : 1;
        if (of.size() == 2) return static_cast<double>(x[static_cast<std::size_t>(ch * S + s)]);
        return static_cast<double>(x[static_cast<std::size_t>(((i * G + ch / (C / G)) * S + s) * L + t)]);
    };
    std::vector<T> y(u.size()), last(first.size());
    for (index_t i = 0; i < B; ++i)
        for (index_t ch = 0; ch < C; ++ch) {
            double h[S];
            for (index_t s = 0; s < S; ++s) h[s] = has.initial ? first[(i * C + ch) * S + s] : 0;
            for (index_t t = 0; t < L; ++t) {
                const auto at = static_cast<std::size_t>((i * C + ch) * L + t);
                double d = delta[at] + (has.bias ? bias[ch] : T(0)), sum = 0;
                if (has.softplus) d = std::log1p(std::exp(d));
                for (index_t s = 0; s < S; ++s) {
                    h[s] = std::exp(d * A[ch * S + s]) * h[s] + d * shared(b, in, i, ch, s, t) * u[at];
                    sum += shared(c, out, i, ch, s, t) * h[s];
                }
                if (has.skip) sum += double(D[ch]) * u[at];
                y[at] = static_cast<T>(has.gate ? sum * silu_of(z[at]) : sum);
            }
            for (index_t s = 0; s < S; ++s) last[(i * C + ch) * S + s] = static_cast<T>(h[s]);
        }
    written_case g("selective_scan");
    g.said("layout", "u,delta,z:[B,D,L];_A:[D,N];_B,C:[B,N,L];_D,delta_bias:[D]");
    if (has.softplus) g.said("delta_softplus", "1");
    g.file("in", "u", {B, C, L}, u).file("in", "delta", {B, C, L}, delta).file("in", "A", {C, S}, A);
    g.file("in", "B", in, b).file("in", "C", out, c);
    if (has.skip) g.file("in", "D", {C}, D);
    if (has.gate) g.file("in", "z", {B, C, L}, z);
    if (has.bias) g.file("in", "delta_bias", {C}, bias);
    if (has.initial) g.file("in", "initial_state", {B, C, S}, first);
    g.file("out", "y", {B, C, L}, y).file("out", "last_state", {B, C, S}, last);
    expect_both(g, conformance::replay_selective_scan);
}

TEST(selective_scan_cases, ranks_and_groups_of_B_and_C) {
    const shape ranks[] = {{12, 3}, {2, 3, 19}, {2, 1, 3, 19}, {2, 2, 3, 19}, {2, 3, 3, 19}, {2, 4, 3, 19}};
    for (const shape& in : ranks)
        for (const shape& out : ranks) expect_selective<float>(in, out, {.softplus = true, .skip = true});
}

TEST(selective_scan_cases, every_combination_of_what_may_be_left_out) {
    for (unsigned bits = 0; bits < 32; ++bits) {
        const selective_parts has{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0};
        expect_selective<float>({2, 3, 19}, {2, 3, 19}, has);
        expect_selective<double>({2, 2, 3, 19}, {2, 2, 3, 19}, has);
    }
}

template <class T>
void expect_mamba2(index_t G, bool initial, bool chunk_axis, bool skips) {
    constexpr index_t B = 2, L = 23, H = 4, P = 5, N = 3;
    const auto x = numbers_of<T>({B, L, H, P}, 1), dt = numbers_of<T>({B, L, H}, 2, 0, 1),
               A = numbers_of<T>({H}, 3, -2, 0), b = numbers_of<T>({B, L, G, N}, 4), c = numbers_of<T>({B, L, G, N}, 5),
               D = numbers_of<T>({H}, 6), first = numbers_of<T>({B, H, P, N}, 7);
    std::vector<T> y(x.size()), last(first.size());
    for (index_t i = 0; i < B; ++i)
        for (index_t h = 0; h < H; ++h)
            for (index_t p = 0; p < P; ++p) {
                double s[N];
                const index_t state = ((i * H + h) * P + p) * N;
                for (index_t n = 0; n < N; ++n) s[n] = initial ? first[state + n] : 0;
                for (index_t t = 0; t < L; ++t) {
                    const index_t token = i * L + t, group = (token * G + h / (H / G)) * N;
                    const double d = dt[token * H + h], value = x[(token * H + h) * P + p];
                    double sum = skips ? D[h] * value : 0;
                    for (index_t n = 0; n < N; ++n) {
                        s[n] = std::exp(d * A[h]) * s[n] + d * b[group + n] * value;
                        sum += c[group + n] * s[n];
                    }
                    y[(token * H + h) * P + p] = static_cast<T>(sum);
                }
                for (index_t n = 0; n < N; ++n) last[state + n] = static_cast<T>(s[n]);
            }
    const shape grouped = G == 1 ? shape{B, L, N} : shape{B, L, G, N};
    written_case g("mamba2_ssd");
    g.file("in", "x", {B, L, H, P}, x).file("in", "dt", {B, L, H}, dt).file("in", "A", {H}, A);
    g.file("in", "B", grouped, b).file("in", "C", grouped, c);
    if (skips) g.file("in", "D", {H}, D);
    if (initial) g.file("in", "initial_states", chunk_axis ? shape{B, 1, H, P, N} : shape{B, H, P, N}, first);
    g.file("out", "y", {B, L, H, P}, y).file("out", "last_state", {B, H, P, N}, last);
    expect_both(g, conformance::replay_mamba2);
}

TEST(mamba2_cases, groups_states_and_skips) {
    for (index_t G : {1, 2, 4})
        for (bool initial : {false, true})
            for (bool skips : {false, true}) {
                expect_mamba2<float>(G, initial, false, skips);
                expect_mamba2<double>(G, initial, true, skips);
            }
}

template <class T>
void expect_hgrn(bool initial) {
    constexpr index_t B = 2, L = 18, C = 5;
    const auto x = numbers_of<T>({B, L, C}, 1), g = numbers_of<T>({B, L, C}, 2, -3, 0);
    const auto first = numbers_of<T>({B, C}, 3);
    std::vector<T> o(x.size()), last(first.size());
    for (index_t b = 0; b < B; ++b)
        for (index_t c = 0; c < C; ++c) {
            double h = initial ? first[b * C + c] : 0;
            for (index_t t = 0; t < L; ++t) {
                const index_t at = (b * L + t) * C + c;
                h = std::exp(double(g[at])) * h + x[at];
                o[at] = static_cast<T>(h);
            }
            last[b * C + c] = static_cast<T>(h);
        }
    written_case k("hgrn");
    k.file("in", "x", {B, L, C}, x).file("in", "g", {B, L, C}, g);
    if (initial) k.file("in", "h0", {B, C}, first);
    k.file("out", "o", {B, L, C}, o).file("out", "ht", {B, C}, last);
    expect_both(k, conformance::replay_hgrn);
}

TEST(hgrn_cases, types_and_states) {
    expect_hgrn<float>(false), expect_hgrn<float>(true);
    expect_hgrn<double>(false), expect_hgrn<double>(true);
}

template <class T>
void expect_conv(index_t K, const std::string& activation, bool biased, bool has_past) {
    constexpr index_t B = 2, C = 3, L = 9;
    const auto x = numbers_of<T>({B, C, L}, 1), w = numbers_of<T>({C, 1, K}, 2), bias = numbers_of<T>({C}, 3),
               past = numbers_of<T>({B, C, K - 1}, 4);
    std::vector<T> y(x.size()), present(past.size());
    for (index_t row = 0; row < B * C; ++row) {
        std::vector<double> all;
        for (index_t k = 0; k < K - 1; ++k) all.push_back(has_past ? past[row * (K - 1) + k] : 0);
        for (index_t t = 0; t < L; ++t) all.push_back(x[row * L + t]);
        for (index_t t = 0; t < L; ++t) {
            double sum = biased ? bias[row % C] : 0;
            for (index_t k = 0; k < K; ++k) sum += w[row % C * K + k] * all[static_cast<std::size_t>(t + k)];
            y[row * L + t] = static_cast<T>(activation == "silu" || activation == "swish" ? silu_of(sum) : sum);
        }
        for (index_t k = 0; k < K - 1; ++k)
            present[row * (K - 1) + k] = static_cast<T>(all[static_cast<std::size_t>(L + k)]);
    }
    written_case g("CausalConvWithState");
    if (!activation.empty()) g.said("activation", activation);
    g.file("in", "input", {B, C, L}, x).file("in", "weight", {C, 1, K}, w);
    if (biased) g.file("in", "bias", {C}, bias);
    if (has_past) g.file("in", "past_state", {B, C, K - 1}, past);
    g.file("out", "output", {B, C, L}, y).file("out", "present_state", {B, C, K - 1}, present);
    expect_both(g, conformance::replay_causal_conv);
}

TEST(causal_conv_cases, widths_activations_biases_and_pasts) {
    for (index_t K : {1, 2, 4, 12})
        for (const char* activation : {"", "none", "silu", "swish"})
            for (bool biased : {false, true})
                for (bool past : {false, true}) {
                    expect_conv<float>(K, activation, biased, past);
                    expect_conv<double>(K, activation, biased, past);
                }
}

}  // namespace
