// Rows of stored elements as packs: how keys and values lie in memory, and how they become numbers.
//
// A row format is a small value with
//   storage                 element type, of float accuracy or double (see accumulator)
//   load<P>(row, d)         lanes d, d + 1, ... of a row as numbers, all of them inside the row
//   load<P>(row, d, n)      the first n of these lanes, zero above
//   factor(row)             what the row's numbers are still to be multiplied by; has_factor tells whether it is not 1
//   contiguous()            whether load may be called: elements of a row are neighbours
//   number(row, d)          one element, whatever the layout, its factor included
//   from(row)               the same rows, counted from `row` on
//   address(row), bits      where a row starts and bits an element takes, to ask for it ahead of time
// A factor per row stays out of the products: a key's multiplies its logit, a value's its weight. Formats with a factor
// are contiguous and hold finite numbers only.
#pragma once

#include "convert.hpp"

namespace heed::inline HEED_ABI {

/// Rows of S, `stride` elements apart; the elements of a row `step` apart.
template <class S>
struct plain_rows {
    using storage = S;
    static constexpr bool has_factor = false;
    static constexpr int bits = 8 * sizeof(S);
    const S* data = nullptr;
    index_t stride = 0;
    index_t step = 1;

    template <class P>
    HEED_INLINE P load(index_t row, index_t d) const {
        return widen<P>(data + row * stride + d);
    }
    template <class P>
    HEED_INLINE P load(index_t row, index_t d, index_t n) const {
        alignas(64) S at[P::size];
        copy_first(at, data + row * stride + d, n);
        return widen<P>(at);
    }
    HEED_INLINE float factor(index_t) const { return 1; }
    bool contiguous() const { return step == 1; }
    double number(index_t row, index_t d) const { return static_cast<double>(data[row * stride + d * step]); }
    HEED_INLINE const void* address(index_t row) const { return data + row * stride; }
    plain_rows from(index_t row) const { return {data + row * stride, stride, step}; }
};

template <class Rows>
concept row_format = requires { Rows::has_factor; };

/// One row of S, whose elements are neighbours: what is left of plain_rows where every row may lie anywhere.
template <class S>
struct lone_row {
    using storage = S;
    static constexpr bool has_factor = false;
    static constexpr int bits = 8 * sizeof(S);
    const S* data = nullptr;

    template <class P>
    HEED_INLINE P load(index_t, index_t d) const {
        return widen<P>(data + d);
    }
    template <class P>
    HEED_INLINE P load(index_t, index_t d, index_t n) const {
        return plain_rows<S>{data}.template load<P>(0, d, n);
    }
    HEED_INLINE float factor(index_t) const { return 1; }
    bool contiguous() const { return true; }
    double number(index_t, index_t d) const { return static_cast<double>(data[d]); }
    HEED_INLINE const void* address(index_t) const { return data; }
};

/// What a product reads of row 0, its factor not included: as little as names it.
template <row_format Rows>
HEED_INLINE Rows alone(const Rows& rows) {
    return rows;
}
template <class S>
HEED_INLINE lone_row<S> alone(const plain_rows<S>& rows) {
    return {rows.data};
}

template <class Rows>
using lone = decltype(alone(std::declval<Rows>()));

/// The same of rows whose n elements may be apart: those are put side by side at `to`.
template <row_format Rows, class S>
auto alone(const Rows& rows, index_t n, S* to) {
    auto row = alone(rows);
    if constexpr (std::is_same_v<decltype(row), lone_row<S>>)
        if (!rows.contiguous()) {
            for (index_t d = 0; d < n; ++d) to[d] = rows.data[d * rows.step];
            row.data = to;
        }
    return row;
}

/// Row `row` as n contiguous T.
template <class A, row_format Rows, class T>
void widen_row(const Rows& rows, index_t row, index_t n, T* to) {
    using P = pack<T, A>;
    constexpr auto width = static_cast<index_t>(P::size);
    if (!rows.contiguous()) {
        for (index_t d = 0; d < n; ++d) to[d] = static_cast<T>(rows.number(row, d));
        return;
    }
    const P by(rows.factor(row));
    const auto scaled = [&](const P& x) {
        if constexpr (Rows::has_factor) return x * by;
        else return x;
    };
    index_t d = 0;
    for (; d + width <= n; d += width) store(to + d, scaled(rows.template load<P>(row, d)));
    if (d < n) {
        alignas(64) T rest[P::size];
        store_aligned(rest, scaled(rows.template load<P>(row, d, n - d)));
        std::copy_n(rest, n - d, to + d);
    }
}

/// Whether the first n elements of a row hold neither inf nor NaN.
template <class A, class T, row_format Rows>
bool all_finite(const Rows& rows, index_t row, index_t n) {
    using P = pack<T, A>;
    constexpr auto width = static_cast<index_t>(P::size);
    bool finite = true;
    if (!rows.contiguous()) {
        for (index_t d = 0; d < n; ++d) finite &= rows.number(row, d) * 0 == 0;
        return finite;
    }
    P sum(rows.factor(row) * T(0));  // x * 0 is 0 or NaN
    index_t d = 0;
    for (; d + width <= n; d += width) sum += rows.template load<P>(row, d) * P(0);
    if (d < n) sum += rows.template load<P>(row, d, n - d) * P(0);
    return !any(sum != P(0));
}

}  // namespace heed::inline HEED_ABI
