// How the products of streamed.hpp take rows: so many elements at once as an operand.
//
//   number_products    a pack of numbers, whatever the row's format
//   pair_products      two packs of bf16, the even elements and the odd ones: a register holds both, and each is a number
//                      after one instruction, where neighbours that become neighbours need two
// Both say
//   load(row, d), load(row, d, n)   an operand of a row; its first n elements, zero above
//   load_aligned(q), store(q, x)    of numbers that lie as `place` says: element d of a row at place(d)
//   add(x, y, to)                   sum + products, numbers(sum)
//   add_scaled(x, by, to)           each + its element times a number
#pragma once

#include <algorithm>
#include <type_traits>

#include "../simd/rows.hpp"
#include "../simd/stored_rows.hpp"

namespace heed::inline HEED_ABI::detail {

template <class T, class A>
struct number_products {
    using element = T;  // of q
    using pack = heed::pack<T, A>;
    using operand = pack;
    using sum = pack;
    static constexpr index_t step = lanes<T, A>;  // elements of a row in an operand

    static constexpr index_t place(index_t d) { return d; }
    template <class Rows>
    static HEED_INLINE operand load(const Rows& row, index_t d) {
        return pinned(row.template load<pack>(0, d));
    }
    template <class Rows>
    static HEED_INLINE operand load(const Rows& row, index_t d, index_t n) {
        return pinned(row.template load<pack>(0, d, n));
    }
    static HEED_INLINE operand load_aligned(const T* q) { return pinned(heed::load_aligned<pack>(q)); }
    static HEED_INLINE void store(T* q, const operand& x) { store_aligned(q, x); }
    static HEED_INLINE sum zero() { return pack(T(0)); }
    static HEED_INLINE sum add(const operand& x, const operand& y, const sum& to) { return fma(x, y, to); }
    static HEED_INLINE pack numbers(const sum& x) { return x; }
    static HEED_INLINE operand add_scaled(const operand& x, const pack& by, const operand& to) { return fma(x, by, to); }
};

template <class A>
struct pair_products {
    using element = float;
    using pack = heed::pack<float, A>;
    struct operand {
        pack even, odd;
    };
    using sum = pack;
    static constexpr index_t L = lanes<float, A>, step = 2 * L;

    static constexpr index_t place(index_t d) { return d / step * step + d % 2 * L + d % step / 2; }
    static HEED_INLINE operand load(const lone_row<bf16>& row, index_t d) {
        operand x;
        widen_pairs(row.data + d, x.even, x.odd);
        return {pinned(x.even), pinned(x.odd)};
    }
    static HEED_INLINE operand load(const lone_row<bf16>& row, index_t d, index_t n) {
        alignas(64) bf16 at[step];
        copy_first(at, row.data + d, n);
        return load({at}, 0);
    }
    static HEED_INLINE operand load_aligned(const float* q) {
        return {pinned(heed::load_aligned<pack>(q)), pinned(heed::load_aligned<pack>(q + L))};
    }
    static HEED_INLINE void store(float* q, const operand& x) { store_aligned(q, x.even), store_aligned(q + L, x.odd); }
    static HEED_INLINE sum zero() { return pack(0); }
    static HEED_INLINE sum add(const operand& x, const operand& y, const sum& to) {
        return fma(x.odd, y.odd, fma(x.even, y.even, to));
    }
    static HEED_INLINE pack numbers(const sum& x) { return x; }
    static HEED_INLINE operand add_scaled(const operand& x, const pack& by, const operand& to) {
        return {fma(x.even, by, to.even), fma(x.odd, by, to.odd)};
    }
};

/// Which of them meets rows of a format, for sums in T.
template <class Rows, class T, class A>
using products_of = std::conditional_t<std::is_same_v<Rows, lone_row<bf16>> && std::is_same_v<T, float>, pair_products<A>,
                                       number_products<T, A>>;

/// n numbers, whole operands, from their order to that of Op.
template <class Op>
void arrange(typename Op::element* x, index_t n) {
    if constexpr (Op::place(1) != 1)
        for (index_t d = 0; d < n; d += Op::step) {
            typename Op::element row[Op::step];
            std::copy_n(x + d, Op::step, row);
            for (index_t i = 0; i < Op::step; ++i) x[d + Op::place(i)] = row[i];
        }
}
/// And back.
template <class Op>
void arrange_back(typename Op::element* x, index_t n) {
    if constexpr (Op::place(1) != 1)
        for (index_t d = 0; d < n; d += Op::step) {
            auto pair = Op::load_aligned(x + d);
            interleave(pair.even, pair.odd);
            Op::store(x + d, pair);
        }
}

}  // namespace heed::inline HEED_ABI::detail
