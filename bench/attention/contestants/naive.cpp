// The definition as plain loops, one row of scores at a time.
#include "contestant.hpp"

namespace bench {
namespace {

template <class T>
job prepare_as(const problem& p, operands& x) {
    using A = accumulator<T>;
    const auto q = x.q.as<T>(), k = x.k.as<T>(), v = x.v.as<T>(), o = x.o.as<T>();
    const std::uint8_t* mask = x.dense(p);
    return over_tasks<A>(p.threads, p.H, p.M + p.D, [=, &x](index_t h, A* s) {
        const index_t g = h / (p.H / p.G);
        const A scale = static_cast<A>(p.scale()), cap = static_cast<A>(p.what.softcap);
        A* sum = s + p.M;
        for (index_t i = 0; i < p.N; ++i) {
            const bool sinks = p.what.sinks;
            A top = sinks ? static_cast<A>(x.sinks[static_cast<std::size_t>(h)]) : -std::numeric_limits<A>::infinity();
            A total = 0;
            for (index_t j = 0; j < p.M; ++j) {
                s[j] = -std::numeric_limits<A>::infinity();
                if (mask && !mask[i * p.M + j]) continue;
                A dot = 0;
                for (index_t d = 0; d < p.D; ++d) dot += static_cast<A>(q(0, h, i, d)) * static_cast<A>(k(0, g, j, d));
                s[j] = dot * scale;
                if (cap > 0) s[j] = cap * std::tanh(s[j] / cap);
                top = std::max(top, s[j]);
            }
            if (sinks) total = std::exp(static_cast<A>(x.sinks[static_cast<std::size_t>(h)]) - top);
            for (index_t d = 0; d < p.D; ++d) sum[d] = 0;
            for (index_t j = 0; j < p.M; ++j) {
                if (mask && !mask[i * p.M + j]) continue;
                const A weight = std::exp(s[j] - top);
                total += weight;
                for (index_t d = 0; d < p.D; ++d) sum[d] += weight * static_cast<A>(v(0, g, j, d));
            }
            for (index_t d = 0; d < p.D; ++d) o(0, h, i, d) = static_cast<T>(total > 0 ? sum[d] / total : A(0));
        }
    });
}

job prepare(const problem& p, operands& x) {
    return with_type(p.type, [&](auto zero) { return prepare_as<decltype(zero)>(p, x); });
}

bool able(const problem& p) { return static_cast<double>(p.N * p.M * p.H * p.D) < 5e9; }

}  // namespace

extern const contestant naive_contestant{"naive", able, prepare};

}  // namespace bench
