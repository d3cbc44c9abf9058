#include "check.hpp"

#include <cstdio>
#include <heed/core/random.hpp>
#include <heed/ref/attention.hpp>

namespace bench {
namespace {

/// What the error of a row may be, relative to its norm: rounding of inputs to the products, weights and the output.
double tolerance(dtype t) {
    switch (t) {
        case dtype::f64:
            return 1e-12;
        case dtype::bf16:
            return 1.5e-2;
        case dtype::f16:
            return 2e-3;
        default:
            return 2e-5;
    }
}

std::vector<index_t> sample_of_rows(index_t N) {
    constexpr index_t most = 12;
    std::vector<index_t> rows;
    if (N <= most) {
        for (index_t n = 0; n < N; ++n) rows.push_back(n);
        return rows;
    }
    const counter_random random(7);
    rows = {0, 1, N / 2, N - 1};
    for (index_t i = static_cast<index_t>(rows.size()); i < most; ++i)
        rows.push_back(random.integer(static_cast<std::uint64_t>(i), 0, N));
    return rows;
}

}  // namespace

std::string difference_from_definition(const problem& p, const operands& x) {
    return with_type(p.type, [&](auto zero) -> std::string {
        using T = decltype(zero);
        const auto q = x.q.as<T>(), k = x.k.as<T>(), v = x.v.as<T>(), o = x.o.as<T>();
        std::vector<double> memory(static_cast<std::size_t>(p.H * p.D));
        const auto exact = heads(memory.data(), {1, p.H, 1, p.D});
        for (index_t n : sample_of_rows(p.N)) {
            const range row{n, n + 1};
            ref::options<double> with;
            with.visible = [&](index_t b, index_t h, index_t, index_t i, index_t j) {
                return x.mask.allows({b, h, n, i, j});
            };
            if (const double cap = static_cast<double>(p.what.softcap); cap > 0)
                with.score = [cap](double s, auto...) { return cap * std::tanh(s / cap); };
            with.sink.assign(x.sinks.begin(), x.sinks.end());
            with.scale = p.scale();
            with.offset = n + p.shift();
            ref::attention(slice(q, 2, row), k, v, exact, with);
            for (index_t h = 0; h < p.H; ++h) {
                double error = 0, norm = 0;
                for (index_t d = 0; d < p.D; ++d) {
                    const double e = exact(0, h, 0, d), a = static_cast<double>(o(0, h, n, d)) - e;
                    error += a * a;
                    norm += e * e;
                }
                if (std::sqrt(error) <= tolerance(p.type) * std::sqrt(norm)) continue;  // a NaN does not pass
                char text[120];
                std::snprintf(text, sizeof text, "wrong: row %td of head %td is off by %.1e of its norm", n, h,
                              std::sqrt(error / norm));
                return text;
            }
        }
        return "";
    });
}

}  // namespace bench
