// The tokens of one block of log-linear attention among themselves, all levels in one triangular product:
//
//   o_i = sum_{j <= i} scale_i[level(i, j)] X_ij w_j      X = P (I + M)^{-1},  w = v or beta v
//   P_ij = (q_i . k_j) a_{j+1} ... a_i,   M_ij = beta_i (k_i . k_j) a_{j+1} ... a_i  (j < i; 0 without the delta rule)
//   level(i, j) = bits of i xor j: in a block that starts at a multiple of its length, places within it will do
// Cost: n (D + E) flops a token for n of them, the delta rule n (D + n) more. Triangles stop at the diagonal, so that a
// NaN of a later token meets no earlier one.
#pragma once

#include <bit>

#include "../core/context.hpp"
#include "../simd/micro.hpp"

namespace heed::inline HEED_ABI {

template <class A, class T>
class level_block {
    using P = pack<T, A>;
    using Op = multiply_add<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr int R = tile_scalars<A>;

public:
    static constexpr index_t unit = 16;  // rows are padded to it

    /// Rows of up to n tokens, D and E wide, in scratch: q, k (round_up(n), row()), v (round_up(n), column()); a and
    /// beta (n).
    level_block(carver& from, index_t n, index_t D, index_t E, bool delta)
        : padded_(round_up(n, unit)), row_(round_up(D, unit)), column_(round_up(E, unit)), D_(D), E_(E) {
        q = from.take<T>(padded_ * row_);
        k = from.take<T>(padded_ * row_);
        v = from.take<T>(padded_ * column_);
        a = from.take<T>(padded_);
        beta = from.take<T>(padded_);
        keys_ = from.take<T>(row_ * padded_);
        met_ = from.take<T>(padded_ * padded_);
        erased_ = from.take<T>(delta ? padded_ * padded_ : 0);
        factor_ = from.take<T>(padded_);
    }
    index_t row() const { return row_; }
    index_t column() const { return column_; }

    /// o (n rows of column() elements, `stride` apart): scales(i)[level] weighs a level for token i. Rows of k, v, q
    /// from n up to the next multiple of `unit` are overwritten with zeros.
    template <class Scales>
    void run(index_t n, bool delta, const Scales& scales, T* o, index_t stride) const {
        const index_t rows = round_up(n, unit);
        std::fill(q + n * row_, q + rows * row_, T(0));
        std::fill(k + n * row_, k + rows * row_, T(0));
        std::fill(v + n * column_, v + rows * column_, T(0));
        for (index_t j = 0; j < rows; ++j)
            for (index_t d = 0; d < D_; ++d) keys_[d * padded_ + j] = k[j * row_ + d];
        meet(q, rows, met_);
        if (delta) meet(k, rows, erased_);
        decay(n, delta);
        if (delta)
            for (index_t i = 0; i < n; ++i) solve(i);
        for (index_t i = 0; i < n; ++i) {
            const auto scale = scales(i);
            for (index_t j = 0; j <= i; ++j) {
                const auto level = static_cast<index_t>(std::bit_width(static_cast<std::size_t>(i ^ j)));
                met_[i * padded_ + j] *= scale(level) * (delta ? beta[j] : T(1));
            }
        }
        for (index_t e = 0; e < column_; e += L)
            for (index_t i = 0; i < n; i += R) apply(i, std::min<index_t>(R, n - i), e, o, stride);
    }

    T *q, *k, *v, *a, *beta;

private:
    /// to[i][j] = x_i . k_j, in tiles up to the diagonal.
    void meet(const T* x, index_t rows, T* to) const {
        for (index_t i = 0; i < rows; i += R)
            for (index_t j = 0; j < i + R; j += L) {
                register_tile<P, R, 1> acc;
                acc.clear();
                multiply<Op>(acc, x + i * row_, row_, static_index<1>{}, keys_ + j, padded_, D_);
                acc.store_rows(to + i * padded_ + j, padded_);
            }
    }
    /// Products of keys with the tokens after them fade; beyond the diagonal none is read.
    void decay(index_t n, bool delta) const {
        for (index_t i = 0; i < n; ++i) {
            T *const met = met_ + i * padded_, *const erased = erased_ + i * padded_;
            const T kept = a[i], by = delta ? beta[i] : T(0);
            for (index_t j = 0; j < i; ++j) {
                const T factor = factor_[j] *= kept;
                met[j] *= factor;
                if (delta) erased[j] *= by * factor;
            }
            factor_[i] = T(1);
        }
    }
    /// Row i of P becomes that of P (I + M)^{-1}, from its last column to its first.
    void solve(index_t i) const {
        T* const row = met_ + i * padded_;
        for (index_t j = i; j > 0; --j) {
            const T x = row[j];
            const T* const erased = erased_ + j * padded_;
            for (index_t c = 0; c < j; ++c) row[c] -= x * erased[c];
        }
    }
    /// Rows [i, i + count) of one pack of columns.
    void apply(index_t i, index_t count, index_t e, T* o, index_t stride) const {
        register_tile<P, R, 1> acc;
        acc.clear();
        multiply<Op>(acc, met_ + i * padded_, padded_, static_index<1>{}, v + e, column_, i);
        for (index_t r = 0; r < count; ++r) {
            P sum = acc.at[r][0];
            for (index_t j = i; j <= i + r; ++j)
                sum = fma(P(met_[(i + r) * padded_ + j]), load_aligned<P>(v + j * column_ + e), sum);
            store(o + (i + r) * stride + e, sum);
        }
    }

    index_t padded_, row_, column_, D_, E_;
    T *keys_, *met_, *erased_, *factor_;
};

}  // namespace heed::inline HEED_ABI
