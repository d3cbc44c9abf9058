// Point clouds as sequences [52]: groups of neighbours are pooled to tokens, which are scanned both ways.
//
//   pooled[g,c] = sum over n of softmax_n(f[g,n,c] + p[g,n,c]) f[g,n,c], for each channel apart
// f: (G, k, C), pooled: (G, C); p, a function of where the neighbours lie, may be left out. A group of equal features,
// or of one neighbour, is that feature; the order of neighbours does not matter. Cost: two exponentials a feature.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../engine/scan_tile.hpp"
#include "../engine/scratch.hpp"
#include "../policy/monoid.hpp"

namespace heed::inline HEED_ABI {

/// Policies: on{pool, arena}. Throws shape_error before anything is written.
template <class A = default_arch, class F, class O, class G = float, class... P>
void pool_neighbours(const view<F, 3>& f, const view<O, 2>& pooled, const view<G, 3>& geometry = {},
                     const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "pool_neighbours";
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of pool_neighbours");
    const index_t groups = f.shape[0], k = f.shape[1], C = f.shape[2];
    const auto to = writes("the pool", pooled);
    check_written(op, to);
    check_shape(op, to, {groups, C}, "f");
    check_given(op, reads("the geometry", geometry), f.shape, "f");
    check_apart(op, to, reads("f", f));
    check_apart(op, to, reads("the geometry", geometry));
    using T = accumulator<std::remove_const_t<F>, std::remove_const_t<G>, O>;
    using V = pack<T, A>;
    constexpr auto L = static_cast<index_t>(V::size);
    const index_t width = round_up(C, L);
    const auto pool_group = [&](index_t g, T* values) {
        T *const added = values + k * width, *const out = added + k * width;
        const auto of = [g](const auto& x) {
            using S = std::remove_reference_t<decltype(*x.data)>;
            return view<const S, 2>{x.data + g * x.strides[0], {x.shape[1], x.shape[2]}, {x.strides[1], x.strides[2]}};
        };
        fill_rows<A>(of(f), values, width);
        if (geometry.data)
            fill_rows<A>(of(geometry), added, width);
        else
            std::fill_n(added, k * width, T(0));
        for (index_t c = 0; c < width; c += L) {
            numbers<V, 3> s;
            softmax_prefix::start(s);
            for (index_t n = 0; n < k; ++n) {
                const V x = load<V>(values + n * width + c);
                softmax_prefix::act(s, numbers<V, 3>{x + load<V>(added + n * width + c), V(1), x});
            }
            store(out + c, softmax_prefix::read(s)[0]);
        }
        narrow_row<A>(out, C, pooled.data + g * pooled.strides[0], pooled.strides[1]);
    };
    const auto room = static_cast<std::size_t>(round_up((2 * k + 1) * width, 16)) * sizeof(T);
    in_scratch(
        op, [&](auto& crew) { return static_cast<std::size_t>(workers(crew, groups)) * room; },
        [&](auto& crew, std::byte* memory) {
            for_tasks(crew, groups, [&](index_t g, index_t worker) {
                pool_group(g, reinterpret_cast<T*>(memory + static_cast<std::size_t>(worker) * room));
            });
        },
        policies...);
}

}  // namespace heed::inline HEED_ABI
