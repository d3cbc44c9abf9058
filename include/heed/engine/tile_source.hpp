// Where the K and V of a key tile come from.
#pragma once

#include "../core/view.hpp"
#include "attention_tile.hpp"

namespace heed::inline HEED_ABI::detail {

/// Brings the K and V of a key tile to where the micro-kernel can read them: a view where storage is native, else
/// widened (or, for bf16 pairs, interleaved) into scratch, a micro-block at a time and only those that are visible.
template <class A, class T, class Op, class TK, class TV>
class tile_source {
public:
    using scalar = typename Op::scalar;
    using shape = tiling<A, T>;

    tile_source(const view<const TK>& k, const view<const TV>& v, index_t b, index_t g, scalar* k_scratch,
                scalar* v_scratch)
        : k_(k), v_(v), k_row_(k.data + b * k.strides[0] + g * k.strides[1]),
          v_row_(v.data + b * v.strides[0] + g * v.strides[1]), k_scratch_(k_scratch), v_scratch_(v_scratch) {}

    void open(range keys) {
        loaded_ = 0;
        tile_.keys = keys;
        const bool whole = keys.size() % shape::keys == 0;  // the micro-kernel reads whole micro-blocks of K
        k_native_ = false;
        if constexpr (Op::step == 1 && std::is_same_v<TK, scalar>) {
            k_native_ = whole && k_.strides[3] == 1;
            if (k_native_) tile_.k = k_row_ + keys.first * k_.strides[2];
        } else if constexpr (Op::step == 2) {
            k_native_ = whole && k_.strides[3] == 1 && k_.shape[3] % 2 == 0 && k_.strides[2] % 2 == 0;
            if (k_native_) tile_.k = reinterpret_cast<const scalar*>(k_row_ + keys.first * k_.strides[2]);
        }
        tile_.k_stride = k_native_ ? k_.strides[2] / Op::step : depth();
        if (!k_native_) tile_.k = k_scratch_;
        v_native_ = false;
        if constexpr (Op::step == 1 && std::is_same_v<TV, scalar>) {
            v_native_ = v_.strides[3] == 1;
            if (v_native_) tile_.v = v_row_ + keys.first * v_.strides[2];
        }
        tile_.v_stride = v_native_ ? v_.strides[2] : v_.shape[3];
        if (!v_native_) tile_.v = v_scratch_;
    }

    void load(const tile_plan<A, T>& plan) {
        if (k_native_ && v_native_) return;
        for (int x = 0; x < plan.count; ++x) {
            const int block = plan.at[x].block;
            if (loaded_ >> block & 1) continue;
            loaded_ |= std::uint64_t(1) << block;
            if (!k_native_) load_k(block, plan.at[x].count);
            if (!v_native_) load_v(block, plan.at[x].count);
        }
    }

    const key_tile<Op>& tile() const { return tile_; }

    /// Whether the values of a micro-block are all finite.
    bool finite(const visible_keys& at) const {
        for (int c = 0; c < at.count; ++c)
            if (!all_finite<A, T>(v_row(at.block * shape::keys + c), v_.strides[3], v_.shape[3])) return false;
        return true;
    }
    const TV* v_row(index_t key) const { return v_row_ + (tile_.keys.first + key) * v_.strides[2]; }

private:
    index_t depth() const { return ceil_div(k_.shape[3], Op::step); }

    void load_k(int block, int count) {
        const index_t D = k_.shape[3];
        for (int c = 0; c < shape::keys; ++c) {
            const index_t key = block * shape::keys + c;
            const TK* from = k_row_ + (tile_.keys.first + key) * k_.strides[2];
            auto* to = reinterpret_cast<typename Op::element*>(k_scratch_ + key * depth());
            if (c >= count) {
                std::memset(to, 0, static_cast<std::size_t>(depth()) * sizeof(scalar));
            } else if constexpr (Op::step == 1) {
                widen_row<A>(from, k_.strides[3], D, to);
            } else {
                for (index_t d = 0; d < D; ++d) std::memcpy(to + d, from + d * k_.strides[3], sizeof *to);
                if (D % 2) to[D] = 0;
            }
        }
    }

    void load_v(int block, int count) {
        const index_t E = v_.shape[3];
        if constexpr (Op::step == 1) {
            for (int c = 0; c < count; ++c) {
                const index_t key = block * shape::keys + c;
                widen_row<A>(v_row(key), v_.strides[3], E, v_scratch_ + key * E);
            }
        } else {
            for (int c = 0; c < shape::keys; c += 2) {
                const index_t key = block * shape::keys + c;
                scalar* to = v_scratch_ + key / 2 * E;
                Op::interleave(c < count ? v_row(key) : nullptr, c + 1 < count ? v_row(key + 1) : nullptr,
                               v_.strides[3], E, to);
            }
        }
    }

    view<const TK> k_;
    view<const TV> v_;
    const TK* k_row_;
    const TV* v_row_;
    scalar* k_scratch_;
    scalar* v_scratch_;
    key_tile<Op> tile_;
    std::uint64_t loaded_ = 0;
    bool k_native_ = false, v_native_ = false;
};

}  // namespace heed::inline HEED_ABI::detail
