// Point clouds as sequences [52]: groups of neighbours are pooled to tokens, which are scanned both ways.
//
//   pooled[g,c] = sum over n of softmax_n(f[g,n,c] + p[g,n,c]) f[g,n,c], for each channel apart
// f: (G, k, C), pooled: (G, C); p, a function of where the neighbours lie, may be left out. A group of equal features,
// or of one neighbour, is that feature; the order of neighbours does not matter. Cost: two exponentials a feature.
#pragma once

#include <vector>

#include "../engine/scan_operands.hpp"
#include "../engine/scan_tile.hpp"
#include "../policy/monoid.hpp"

namespace heed::inline HEED_ABI {

template <class A = default_arch, class F, class O, class G = float>
void pool_neighbours(const view<F, 3>& f, const view<O, 2>& pooled, const view<G, 3>& geometry = {}) {
    using namespace detail;
    static constexpr const char* op = "pool_neighbours";
    const auto [groups, k, C] = f.shape;
    const auto to = writes("the pool", pooled);
    check_written(op, to);
    check_shape(op, to, {groups, C}, "f");
    check_given(op, reads("the geometry", geometry), f.shape, "f");
    check_apart(op, to, reads("f", f));
    using T = accumulator<std::remove_const_t<F>, std::remove_const_t<G>, O>;
    using V = pack<T, A>;
    constexpr auto L = static_cast<index_t>(V::size);
    const index_t width = round_up(C, L);
    std::vector<T> memory(static_cast<std::size_t>((2 * k + 1) * width));
    T *const values = memory.data(), *const added = values + k * width, *const out = added + k * width;
    for (index_t g = 0; g < groups; ++g) {
        const auto of = [&, g](const auto& x) {
            using S = std::remove_reference_t<decltype(*x.data)>;
            return view<const S, 2>{x.data + g * x.strides[0], {x.shape[1], x.shape[2]}, {x.strides[1], x.strides[2]}};
        };
        fill_rows<A>(of(f), values, width);
        if (geometry.data) fill_rows<A>(of(geometry), added, width);
        for (index_t c = 0; c < width; c += L) {
            numbers<V, 3> s;
            softmax_prefix::start(s);
            for (index_t n = 0; n < f.shape[1]; ++n) {
                const V x = load<V>(values + n * width + c);
                softmax_prefix::act(s, numbers<V, 3>{x + load<V>(added + n * width + c), V(1), x});
            }
            store(out + c, softmax_prefix::read(s)[0]);
        }
        narrow_row<A>(out, C, pooled.data + g * pooled.strides[0], pooled.strides[1]);
    }
}

}  // namespace heed::inline HEED_ABI
