// Where the K and V of a key tile come from.
#pragma once

#include "../policy/source.hpp"
#include "attention_tile.hpp"

namespace heed::inline HEED_ABI::detail {

/// Brings the K and V of a key tile to where the micro-kernel can read them: straight from the source where storage is
/// native and the tile lies in one run, else widened (or, for bf16 pairs, interleaved) into scratch, a micro-block at a
/// time and only those that are visible.
template <class A, class T, class Op, class Source>
class tile_source {
public:
    using scalar = typename Op::scalar;
    using shape = tiling<A, T>;
    using K = typename Source::key_rows;
    using V = typename Source::value_rows;

    tile_source(const Source& source, index_t b, index_t g, scalar* k_scratch, scalar* v_scratch)
        : source_(source), b_(b), g_(g), k_scratch_(k_scratch), v_scratch_(v_scratch) {}

    void open(range keys) {
        loaded_ = 0;
        tile_.keys = keys;
        run_ = source_.run(b_, g_, keys.first);
        const bool even = run_.keys.last >= keys.last;
        k_native_ = v_native_ = false;
        tile_.k = k_scratch_;
        tile_.k_stride = depth();
        if constexpr (std::is_same_v<K, plain_rows<typename K::storage>>) {
            // The micro-kernel reads whole micro-blocks of K.
            const bool whole = even && keys.size() % shape::keys == 0 && run_.k.step == 1;
            if constexpr (Op::step == 1 && std::is_same_v<typename K::storage, scalar>) {
                if (k_native_ = whole; k_native_) tile_.k = run_.k.data;
            } else if constexpr (Op::step == 2) {
                k_native_ = whole && source_.key_width() % 2 == 0 && run_.k.stride % 2 == 0;
                if (k_native_) tile_.k = reinterpret_cast<const scalar*>(run_.k.data);
            }
            if (k_native_) tile_.k_stride = run_.k.stride / Op::step;
        }
        tile_.v = v_scratch_;
        tile_.v_stride = Op::tiled ? shape::tile_keys / Op::step : source_.value_width();
        if constexpr (Op::step == 1 && std::is_same_v<V, plain_rows<scalar>>)
            if (v_native_ = even && run_.v.step == 1; v_native_) {
                tile_.v = run_.v.data;
                tile_.v_stride = run_.v.stride;
            }
    }

    /// What is visible of K and V, or of K alone; a tile that was opened is loaded in one way.
    void load(const tile_plan<A, T>& plan, bool values = true) {
        if (k_native_ && (v_native_ || !values)) return;
        for (int x = 0; x < plan.count; ++x) {
            constexpr int together = Op::tiled ? static_cast<int>(tiled_keys / shape::keys) : 1;  // met in one product
            for (int block = plan.at[x].block / together * together, end = block + together; block < end; ++block) {
                if (loaded_ >> block & 1) continue;
                loaded_ |= std::uint64_t(1) << block;
                const index_t first = block * shape::keys;
                const auto count = static_cast<int>(std::clamp<index_t>(tile_.keys.size() - first, 0, shape::keys));
                if (!k_native_) load_k(block, count);
                if (values && !v_native_) load_v(block, count);
            }
        }
    }

    const key_tile<Op>& tile() const { return tile_; }

    /// Whether the values of a micro-block are all finite.
    bool finite(const visible_keys& at) {
        for (int c = 0; c < at.count; ++c) {
            const index_t row = row_of(at.block * shape::keys + c);
            if (!all_finite<A, T>(run_.v, row, source_.value_width())) return false;
        }
        return true;
    }

private:
    index_t depth() const { return ceil_div(source_.key_width(), Op::step); }

    /// The row of the tile's key within run_, which is moved to the run that holds it.
    index_t row_of(index_t key) {
        const index_t j = tile_.keys.first + key;
        if (!run_.keys.contains(j)) run_ = source_.run(b_, g_, j);
        return j - run_.keys.first;
    }

    void load_k(int block, int count) {
        const index_t D = source_.key_width();
        for (int c = 0; c < shape::keys; ++c) {
            const index_t key = block * shape::keys + c;
            auto* to = reinterpret_cast<typename Op::element*>(k_scratch_ + key * depth());
            if (c >= count) {
                std::memset(to, 0, static_cast<std::size_t>(depth()) * sizeof(scalar));
            } else if constexpr (Op::step == 1) {
                const index_t row = row_of(key);
                widen_row<A>(run_.k, row, D, to);
            } else {
                const index_t row = row_of(key);
                const auto* from = run_.k.data + row * run_.k.stride;
                for (index_t d = 0; d < D; ++d) std::memcpy(to + d, from + d * run_.k.step, sizeof *to);
                if (D % 2) to[D] = 0;
            }
        }
    }

    void load_v(int block, int count) {
        const index_t E = source_.value_width();
        if constexpr (Op::step == 1) {
            for (int c = 0; c < count; ++c) {
                const index_t key = block * shape::keys + c, row = row_of(key);
                widen_row<A>(run_.v, row, E, v_scratch_ + key * E);
            }
        } else {
            const auto at = [&](index_t key) {
                const index_t row = row_of(key);
                return run_.v.data + row * run_.v.stride;
            };
            if constexpr (Op::tiled) {
                const typename V::storage* rows[shape::keys] = {};
                for (int c = 0; c < count; ++c) rows[c] = at(block * shape::keys + c);
                return Op::transpose(rows, run_.v.step, E, v_scratch_ + block * shape::keys / 2, tile_.v_stride);
            } else for (int c = 0; c < shape::keys; c += 2) {
                const index_t key = block * shape::keys + c;
                const auto* first = c < count ? at(key) : nullptr;
                const auto* second = c + 1 < count ? at(key + 1) : nullptr;
                Op::interleave(first, second, run_.v.step, E, v_scratch_ + key / 2 * E);
            }
        }
    }

    const Source& source_;
    index_t b_, g_;
    scalar* k_scratch_;
    scalar* v_scratch_;
    source_run<K, V> run_{};
    key_tile<Op> tile_;
    std::uint64_t loaded_ = 0;
    bool k_native_ = false, v_native_ = false;
};

}  // namespace heed::inline HEED_ABI::detail
