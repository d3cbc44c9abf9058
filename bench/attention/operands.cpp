#include "operands.hpp"

#include <heed/core/random.hpp>

namespace bench {
namespace {

/// Uniform with variance 1, so that logits have the spread of a layer at initialisation.
void fill(const problem& p, const tensor& t, std::uint64_t stream) {
    with_type(p.type, [&](auto zero) {
        using T = decltype(zero);
        const auto x = t.as<T>();
        const counter_random random(1, stream);
        for (index_t i = 0; i < x.size(); ++i)
            x.data[i] =
                static_cast<T>(static_cast<float>((random.uniform(static_cast<std::uint64_t>(i)) - 0.5) * 3.464));
    });
}

}  // namespace

operands::operands(const problem& p)
    : q(p.type, {1, p.H, p.N, p.D}),
      k(p.type, {1, p.G, p.M, p.D}),
      v(p.type, {1, p.G, p.M, p.D}),
      o(p.type, {1, p.H, p.N, p.D}),
      mask(p.mask()),
      sinks(static_cast<std::size_t>(p.what.sinks ? p.H : 0), 0.5f) {
    fill(p, q, 0);
    fill(p, k, 1);
    fill(p, v, 2);
    fill(p, o, 3);
}

const std::uint8_t* operands::dense(const problem& p) {
    if (p.full()) return nullptr;
    if (dense_mask.empty()) {
        dense_mask.resize(static_cast<std::size_t>(p.N * p.M));
        for (index_t n = 0; n < p.N; ++n)
            for (index_t j = 0; j < p.M; ++j)
                dense_mask[static_cast<std::size_t>(n * p.M + j)] = mask.allows({0, 0, n, n + p.shift(), j});
    }
    return dense_mask.data();
}

}  // namespace bench
