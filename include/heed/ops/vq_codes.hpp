// Quantised keys: the nearest row of a codebook, LongVQ [46].
//
//   code_j = argmin_s |k_j - C_s|^2, the lowest of equally near ones;  k (B, H, N, D), codebook (H, S, D)
// Cost: 2 S D flops a key; the codebook is laid out once for some hundred keys.
#pragma once

#include "../core/context.hpp"
#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../engine/scratch.hpp"
#include "../simd/convert.hpp"
#include "../simd/rows.hpp"

namespace heed::inline HEED_ABI {

namespace detail {

/// The nearest codes of the keys of a head: lanes are codes, which lie by channel, and some keys share what is loaded.
template <class A, class T>
struct nearest_codes {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr int R = 4;  // keys

    index_t S, D;
    T *panel, *keys;  // (packs of S, D, L), (R, D)
    nearest_codes(carver from, index_t codes, index_t width)
        : S(codes), D(width), panel(from.take<T>(round_up(S, L) * D)), keys(from.take<T>(R * D)), size(from.used()) {}
    std::size_t size;

    template <class C>
    void set(const view<const C, 2>& codebook) const {
        for (index_t s = 0; s < round_up(S, L); ++s)
            for (index_t d = 0; d < D; ++d)  // what is no code is infinitely far
                panel[(s / L * D + d) * L + s % L] =
                    s < S ? static_cast<T>(codebook(s, d)) : std::numeric_limits<T>::infinity();
    }
    /// of(r, code) for the rows of k (n, D), n <= R.
    template <class K, class Of>
    void find(const view<const K, 2>& k, const Of& of) const {
        for (index_t r = 0; r < R; ++r)
            if (D > 0) widen_row<A>(&k(std::min(r, k.shape[0] - 1), 0), k.strides[1], D, keys + r * D);
        P least[R], pack_of[R];
        unroll<R>([&](auto r)
                      HEED_INLINE_LAMBDA { least[r] = P(std::numeric_limits<T>::infinity()), pack_of[r] = P(0); });
        for (index_t s = 0; s < S; s += L) {
            P far[R];
            unroll<R>([&](auto r) HEED_INLINE_LAMBDA { far[r] = P(0); });
            for (index_t d = 0; d < D; ++d) {
                const P code = load<P>(panel + s * D + d * L);
                unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                    const P off = P(keys[r * D + d]) - code;
                    far[r] = fma(off, off, far[r]);
                });
            }
            unroll<R>([&](auto r) HEED_INLINE_LAMBDA {
                const auto nearer = far[r] < least[r];
                least[r] = select(nearer, far[r], least[r]);
                pack_of[r] = select(nearer, P(static_cast<T>(s / L)), pack_of[r]);
            });
        }
        for (index_t r = 0; r < k.shape[0]; ++r) {
            alignas(64) T far[P::size], packs[P::size];
            store_aligned(far, least[r]), store_aligned(packs, pack_of[r]);
            index_t best = 0;
            const auto code = [&](index_t l) { return static_cast<index_t>(packs[l]) * L + l; };
            for (index_t l = 1; l < L; ++l)
                if (far[l] < far[best] || (far[l] == far[best] && code(l) < code(best))) best = l;
            of(r, code(best));
        }
    }
};

}  // namespace detail

/// codes (B, H, N) of keys k (B, H, N, D) in a codebook (H, S, D), S >= 1; the lowest of equally near ones. Policies:
/// on{pool, arena}.
template <class A = default_arch, class K, class C, class... P>
void vq_codes(const view<K>& k, const view<C, 3>& codebook, const view<index_t, 3>& codes, const P&... policies) {
    static constexpr const char* op = "vq_codes";
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of vq_codes");
    const index_t B = k.shape[0], H = k.shape[1], N = k.shape[2], D = k.shape[3], S = codebook.shape[1];
    require_shape(codebook.shape[0] == H && codebook.shape[2] == D, op, "the codebook is of ", codebook.shape[0],
                  " heads, width ", codebook.shape[2], ", k of ", H, ", ", D);
    require_shape(codes.shape == extents<3>{B, H, N}, op, "codes are (", codes.shape[0], ", ", codes.shape[1], ", ",
                  codes.shape[2], "), k has (", B, ", ", H, ", ", N, ")");
    require_shape(S >= 1 || B * H * N == 0, op, "the codebook is empty");
    using T = accumulator<std::remove_const_t<K>, std::remove_const_t<C>>;
    using search = detail::nearest_codes<A, T>;
    constexpr index_t some = 256;  // keys a task, for which a codebook is laid out
    const index_t blocks = ceil_div(N, some), tasks = B * H * blocks;
    detail::in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(workers(pool, tasks)) * search(carver(), S, D).size; },
        [&](auto& pool, std::byte* memory) {
            for_tasks(pool, tasks, [&](index_t task, index_t worker) {
                const index_t b = task / blocks / H, h = task / blocks % H;
                const auto size = search(carver(), S, D).size;
                const search own(carver(memory + static_cast<std::size_t>(worker) * size), S, D);
                own.set(view<const std::remove_const_t<C>, 2>{
                    codebook.data + h * codebook.strides[0], {S, D}, {codebook.strides[1], codebook.strides[2]}});
                const range keys{task % blocks * some, std::min(N, (task % blocks + 1) * some)};
                for (index_t n = keys.first; n < keys.last; n += search::R) {
                    const view<const std::remove_const_t<K>, 2> rows{
                        k.data + b * k.strides[0] + h * k.strides[1] + n * k.strides[2],
                        {std::min<index_t>(search::R, keys.last - n), D},
                        {k.strides[2], k.strides[3]}};
                    own.find(rows, [&](index_t r, index_t code) { codes(b, h, n + r) = code; });
                }
            });
        },
        policies...);
}

}  // namespace heed::inline HEED_ABI
