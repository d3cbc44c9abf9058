#include "problem.hpp"

#include <cmath>
#include <cstdio>
#include <limits>

namespace bench {
namespace {

template <class S>
view<S, 3> sequences(S* data, const convolution_problem& p) {
    return p.by_token ? dense(data, {1, p.N, p.C}) : channels(data, {1, p.C, p.N});
}

}  // namespace

std::string convolution_problem::name(const std::string& dtype) const {
    const auto field = [](const char* key, index_t x) { return std::string("/") + key + ":" + std::to_string(x); };
    return std::string("convolution/") + (K < N ? "short" : "long") + (by_token ? "_tokens/" : "/") + dtype +
           field("n", N) + field("k", K) + field("c", C) + field("threads", threads);
}

template <class S>
convolution_operands<S>::convolution_operands(const convolution_problem& p)
    : memory_(static_cast<std::size_t>(p.C * (p.N + p.K))) {
    x = sequences(memory_.data(), p);
    h = dense(memory_.data() + p.C * p.N, {p.C, p.K});
    for (index_t c = 0; c < p.C; ++c) {
        const counter_random random(1, static_cast<std::uint64_t>(c));
        auto unit = [&random, i = std::uint64_t(0)]() mutable { return (random.uniform(i++) - 0.5) * 3.464; };
        double x2 = 0, h2 = 0;
        for (index_t n = 0; n < p.N; ++n) x2 += std::pow(x(0, n, c) = static_cast<S>(unit()), 2);
        for (index_t k = 0; k < p.K; ++k)
            h2 += std::pow(h(c, k) = static_cast<S>(unit() * std::exp(-4.0 * double(k) / double(p.K))), 2);
        for (index_t t : {index_t(0), p.N / 3 + c % 7, p.N - 1}) {
            double exact = 0;
            for (index_t k = 0; k <= std::min(t, p.K - 1); ++k) exact += double(h(c, k)) * double(x(0, t - k, c));
            places_.push_back({t, c, exact, std::sqrt(x2 * h2)});
        }
    }
}

template <class S>
double convolution_operands<S>::error(const view<const S, 3>& y) const {
    double most = 0;
    for (const place& at : places_) {
        const double off = std::abs(double(y(0, at.t, at.c)) - at.exact) / at.norm;
        if (std::isnan(off)) return off;
        most = std::max(most, off);
    }
    return most;
}

template <class S>
convolution_output<S>::convolution_output(const convolution_problem& p)
    : memory_(static_cast<std::size_t>(p.C * p.N), std::numeric_limits<S>::quiet_NaN()) {
    y = sequences(memory_.data(), p);
}

template <class S>
prepared judged(const convolution_problem& p, const convolution_operands<S>& x, const convolution_output<S>& to,
                job run) {
    run();
    const double error = x.error(to.y), tolerance = sizeof(S) == 4 ? 1e-6 : 1e-14;
    char wrong[80] = "";
    if (!(error <= tolerance)) std::snprintf(wrong, sizeof wrong, "wrong: off by %.1e of |h| |x|", error);
    const double C = double(p.C), N = double(p.N), both = 2 * N;
    return {.run = std::move(run),
            .wrong = wrong,
            // Long: two real transforms of 2 N, counted as 2.5 n log2 n each, and a product, as FFTW's authors count.
            .flops = C * (p.K < p.N ? 2 * N * double(p.K) : 5 * both * std::log2(both) + 3 * both),
            .bytes = C * (2 * N + double(p.K)) * sizeof(S),
            .in_double = sizeof(S) == 8,
            .columns = {{"error", error}},
            .output = to.bytes()};
}

measurement measured(const convolution_problem& p, const convolver& by) {
    return {p.name(by.dtype) + "/" + by.by, p.threads, [prepare = by.prepare, p] { return prepare(p); }};
}

template class convolution_operands<float>;
template class convolution_operands<double>;
template class convolution_output<float>;
template class convolution_output<double>;
template prepared judged(const convolution_problem&, const convolution_operands<float>&,
                         const convolution_output<float>&, job);
template prepared judged(const convolution_problem&, const convolution_operands<double>&,
                         const convolution_output<double>&, job);

}  // namespace bench
