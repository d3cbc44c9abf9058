// What attention to quantised keys [46] keeps of the tokens: the mean value of each code, which is exact whatever came
// before, and the last tokens one by one.
#pragma once

#include <array>
#include <vector>

#include "../policy/roles.hpp"
#include "row_maps.hpp"

namespace heed::inline HEED_ABI {

namespace detail {

/// Channels of a row of a head.
template <class T>
view<T, 1> row_of(const view<T>& x, index_t b, index_t h, index_t n) {
    return {x.data + b * x.strides[0] + h * x.strides[1] + n * x.strides[2], {x.shape[3]}, {x.strides[3]}};
}

/// The tokens of each code met: its key, how many there are, and the mean of their values, in the order of first sight.
/// In memory of a carver.
template <class T>
class code_means {
public:
    code_means(carver& from, index_t B, index_t H, index_t S, index_t D, index_t E)
        : H_(H),
          met_(dense(from.take<index_t>(B * H), {B, H})),
          place_(dense(from.take<index_t>(B * H * S), {B, H, S})),
          counts_(dense(from.take<index_t>(B * H * S), {B, H, S})),
          logs_(dense(from.take<T>(B * H * S), {B, H, 1, S})),
          keys_(heads(from.take<T>(B * H * S * D), {B, H, S, D})),
          means_(heads(from.take<T>(B * H * S * E), {B, H, S, E})) {}
    void clear() const {
        std::fill_n(met_.data, met_.size(), index_t(0));
        std::fill_n(place_.data, place_.size(), index_t(-1));
    }

    /// Takes in tokens of codes (B, H, n) with keys and values (B, H, n, ..), key(b, h, n) being a row.
    template <class A, class Context, class C, class Key, class V>
    void add(const Context& with, const view<C, 3>& codes, const Key& key, const view<V>& v, range tokens) const {
        for_tasks(*with.pool, met_.size(), [&](index_t head, index_t) {
            const index_t b = head / H_, h = head % H_;
            for (index_t n = tokens.first; n < tokens.last; ++n) {
                index_t& at = place_(b, h, codes(b, h, n));
                if (at < 0) {
                    at = met_(b, h)++;
                    counts_(b, h, at) = 0;
                    map_row<A, T>(row_of(keys_, b, h, at), as_it_is, key(b, h, n));
                    std::fill_n(&means_(b, h, at, 0), means_.shape[3], T(0));
                }
                const T share = 1 / static_cast<T>(++counts_(b, h, at));
                const auto moved = [share](const auto& mean, const auto& x) {
                    return fma(x - mean, std::remove_cvref_t<decltype(x)>(share),
                               mean);  // by its share of the difference
                };
                const auto mean = row_of(means_, b, h, at);
                map_row<A, T>(mean, moved, mean, row_of(v, b, h, n));
            }
            for (index_t s = 0; s < met_(b, h); ++s) logs_(b, h, 0, s) = std::log(static_cast<T>(counts_(b, h, s)));
        });
    }
    view<const T> keys() const { return keys_; }
    view<const T> means() const { return means_; }
    /// log n of each.
    view<const T> logs() const { return logs_; }
    /// The codes met, which come first.
    struct met_codes {
        using role = roles::mask;
        static constexpr bool monotone = true;
        view<index_t, 2> met;
        range keys(const where& w) const { return {0, met(w.b, w.h)}; }
    };
    met_codes met() const { return {met_}; }

private:
    index_t H_;
    view<index_t, 2> met_;
    view<index_t, 3> place_, counts_;
    view<T> logs_, keys_, means_;
};

/// What a causal sequence leaves behind, in memory of a carver: the tokens of two blocks of L, and the means of those
/// before.
template <class T>
struct vq_memory {
    code_means<T> before;
    view<index_t, 3> codes;  // (B, H, 2 L)
    view<T> keys, values;    // (B, H, 2 L, D), (B, H, 2 L, E)

    vq_memory(carver& from, index_t B, index_t H, index_t S, index_t D, index_t E, index_t L)
        : before(from, B, H, S, D, E),
          codes(dense(from.take<index_t>(B * H * 2 * L), {B, H, 2 * L})),
          keys(heads(from.take<T>(B * H * 2 * L * D), {B, H, 2 * L, D})),
          values(heads(from.take<T>(B * H * 2 * L * E), {B, H, 2 * L, E})) {}

    /// Rows `to` become some tokens of an operand.
    template <class A, class Context, class C, class V>
    void write(const Context& with, range to, const view<C, 3>& codebook, const view<const index_t, 3>& code,
               const view<V>& v) const {
        const index_t H = codes.shape[1];
        for_tasks(*with.pool, codes.shape[0] * H, [&](index_t head, index_t) {
            const index_t b = head / H, h = head % H;
            for (index_t n = 0; n < to.size(); ++n) {
                const index_t s = codes(b, h, to.first + n) = code(b, h, n);
                map_row<A, T>(row_of(keys, b, h, to.first + n), as_it_is, row_of(codebook, h, s));
                map_row<A, T>(row_of(values, b, h, to.first + n), as_it_is, row_of(v, b, h, n));
            }
        });
    }
    /// The first block joins the means, the second takes its place.
    template <class A, class Context>
    void fold(const Context& with) const {
        const index_t L = codes.shape[2] / 2;
        const auto key = [&](index_t b, index_t h, index_t n) { return row_of(keys, b, h, n); };
        before.template add<A>(with, codes, key, values, {0, L});
        for (index_t b = 0; b < codes.shape[0]; ++b)
            for (index_t h = 0; h < codes.shape[1]; ++h) {
                std::copy_n(&codes(b, h, L), L, &codes(b, h, 0));
                for (const auto& rows : {keys, values})
                    std::copy_n(row_of(rows, b, h, L).data, L * rows.shape[3], row_of(rows, b, h, 0).data);
            }
    }
};
/// How far a sequence has come: tokens of the two blocks that are there, and whether there are any before.
struct vq_place {
    index_t held = 0;
    bool early = false;
};

}  // namespace detail

/// What B sequences of H heads leave behind of causal attention in blocks of L tokens. Copies are snapshots.
template <std::floating_point T>
class vq_state {
public:
    vq_state(index_t B, index_t H, index_t S, index_t D, index_t E, index_t L) : shape_{B, H, S, D, E, L} {
        require_argument(L >= 1, "vq_state", "blocks have ", L, " tokens, the least is 1");
        carver count;
        memory(count);
        bytes_.resize(count.used());
        tokens().before.clear();
    }
    detail::vq_memory<T> tokens() {
        carver from(bytes_.data());
        return memory(from);
    }
    detail::vq_place& place() { return place_; }
    std::size_t bytes() const { return bytes_.size(); }
    void check(const char* op, const std::array<index_t, 5>& asked) const {
        static constexpr const char* names[] = {"sequences", "heads", "codes", "channels of keys",
                                                "channels of values"};
        for (std::size_t i = 0; i < asked.size(); ++i)
            require_shape(shape_[i] == asked[i], op, "the state is of ", shape_[i], " ", names[i], ", the call of ",
                          asked[i]);
    }

private:
    detail::vq_memory<T> memory(carver& from) const {
        const auto [B, H, S, D, E, L] = shape_;
        return {from, B, H, S, D, E, L};
    }
    std::array<index_t, 6> shape_;
    std::vector<std::byte> bytes_;
    detail::vq_place place_;
};

}  // namespace heed::inline HEED_ABI
