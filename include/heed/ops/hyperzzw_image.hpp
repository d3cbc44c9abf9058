// HyperZ.Z.W [43] over images, in the parts its published code has: what a network makes of coordinates meets the image.
//
//   global    y[b, i, j, c] = sum_k W[c, i, k] x[b, k, j, c]: a product of matrices for each channel
//   local     y[b, i, j, c] = sum_rs K[b, c, r, s] x[b, i + r - p, j + s - p, c],  p = (k - 1) / 2, zeros around x
//   square    y[b, i, j, c] = W[c, i, j] x[b, i, j, c]^2
//   channels  y[b, i, j, c] = x[b, i, j, c] sigmoid(w[c] m^2),  m the mean of x[b, :, :, c]
// x, y (b, row, column, channel), any strides. K is of a sample, so that results do not know their neighbours; a K of all
// samples has stride 0. Along one axis: hyperzzw.hpp. Cost a pixel and channel: H, k^2, 2 and 3 multiply-adds.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../engine/scan_tile.hpp"
#include "products.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// Row i of an image, (columns, channels); the channels of a pixel.
template <class T>
view<T, 2> row_of_image(const view<T>& x, index_t b, index_t i) {
    return {x.data + b * x.strides[0] + i * x.strides[1], {x.shape[2], x.shape[3]}, {x.strides[2], x.strides[3]}};
}
template <class T>
view<T, 1> pixel(const view<T>& x, index_t b, index_t i, index_t j) {
    return {x.data + b * x.strides[0] + i * x.strides[1] + j * x.strides[2], {x.shape[3]}, {x.strides[3]}};
}
template <class X, class W, class Y, std::size_t R, class... P>
void check_image(const char* op, const view<X>& x, const view<W, R>& w, const extents<R>& want, const view<Y>& y,
                 const P&...) {
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of this operator");
    const auto to = writes("y", y);
    check_written(op, to);
    check_shape(op, reads("x", x), y.shape, "y");
    check_shape(op, reads("W", w), want, "y");
    check_apart(op, to, reads("W", w));
}

template <class A, class T, class X, class K, class Y>
struct local_call {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);

    view<const X> x;
    view<const K> kernels;  // (B, C, k, k)
    view<Y> y;

    index_t k() const { return kernels.shape[2]; }
    index_t width() const { return round_up(y.shape[3], L); }

    struct memory {
        T *taps, *rows, *out;
        std::size_t size;
        memory(carver from, index_t k, index_t columns, index_t width)
            : taps(from.take<T>(k * k * width)),
              rows(from.take<T>(k * columns * width)),
              out(from.take<T>(columns * width)),
              size(from.used()) {}
    };
    memory space(std::byte* at) const { return {carver(at), k(), y.shape[2], width()}; }
    template <class E>
    std::size_t scratch_bytes(E& pool) const {
        return static_cast<std::size_t>(workers(pool, tasks())) * space(nullptr).size;
    }
    /// Some rows of an image a task, for which its taps are laid out.
    static constexpr index_t rows_of_a_task = 8;
    index_t bands() const { return ceil_div(y.shape[1], rows_of_a_task); }
    index_t tasks() const { return y.size() > 0 ? y.shape[0] * bands() : 0; }
    template <class E>
    void run(E& pool, std::byte* scratch) const {
        const std::size_t size = space(nullptr).size;
        for_tasks(pool, tasks(), [&](index_t task, index_t worker) {
            const index_t b = task / bands(), first = task % bands() * rows_of_a_task;
            const memory m = space(scratch + static_cast<std::size_t>(worker) * size);
            for (index_t r = 0; r < k(); ++r)
                fill_rows<A>(view<const K, 2>{kernels.data + b * kernels.strides[0] + r * kernels.strides[2],
                                              {k(), y.shape[3]},
                                              {kernels.strides[3], kernels.strides[1]}},
                             m.taps + r * k() * width(), width());
            for (index_t i = first; i < std::min(y.shape[1], first + rows_of_a_task); ++i) row(b, i, m);
        });
    }

private:
    void row(index_t b, index_t i, const memory& m) const {
        const index_t p = (k() - 1) / 2, columns = y.shape[2], H = y.shape[1];
        const range inside{std::max<index_t>(0, p - i), std::min(k(), H + p - i)};  // rows of taps that meet x
        tile_rows<const T> in[64];
        for (index_t r = inside.first; r < inside.last; ++r)
            in[r] = read_rows<A, T>(row_of_image(x, b, i + r - p), width(), m.rows + r * columns * width());
        const auto to = row_of_image(y, b, i);
        const auto out = write_rows<A, T>(to, width(), m.out, false, false);
        const auto pixels = [&](auto count, index_t j) {
            const range taps{std::max<index_t>(0, p - j), std::min(k(), columns + p - j)};
            for (index_t c = 0; c < width(); c += L) {
                P sum[count];
                unroll<count>([&](auto n) HEED_INLINE_LAMBDA { sum[n] = P(0); });
                for (index_t r = inside.first; r < inside.last; ++r)
                    for (index_t s = taps.first; s < taps.last; ++s) {
                        const P tap = load<P>(m.taps + (r * k() + s) * width() + c);
                        const T* const from = in[r].row(j + s - p) + c;
                        unroll<count>([&](auto n) HEED_INLINE_LAMBDA {
                            sum[n] = fma(tap, load<P>(from + n * in[r].stride), sum[n]);
                        });
                    }
                unroll<count>([&](auto n) HEED_INLINE_LAMBDA { out.put(j + n, c, sum[n]); });
            }
        };
        constexpr int at_once = 8;  // sums in flight hide the latency of the multiply-add; at borders each has its taps
        for (index_t j = 0; j < columns;)
            if (j >= p && j + at_once + p <= columns)
                pixels(std::integral_constant<int, at_once>{}, j), j += at_once;
            else
                pixels(std::integral_constant<int, 1>{}, j), ++j;
        bring_rows<A>(to, out, width(), m.rows, false);
    }
};

}  // namespace detail

/// W (C, H, H); x, y (B, H, columns, C), y of the type that sums are of. Policies: on{pool, arena}.
template <class A = default_arch, class W, class X, class Y, class... P>
void hyperzzw_global(const view<W, 3>& w, const view<X>& x, const view<Y>& y, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "hyperzzw_global";
    const auto [B, H, columns, C] = y.shape;
    check_image(op, x, w, {C, H, H}, y, policies...);
    check_apart(op, writes("y", y), reads("x", x));
    static_assert(std::is_same_v<Y, accumulator<std::remove_const_t<W>, std::remove_const_t<X>, Y>>,
                  "heed: y is of the type that sums are of");
    const auto of = [&, H = H, columns = columns](index_t b, index_t c) {
        return rows_product<A, W, X, Y>{
            {w.data + c * w.strides[0], {1, H, H}, {0, w.strides[1], w.strides[2]}},
            {x.data + b * x.strides[0] + c * x.strides[3], {H, columns}, {x.strides[1], x.strides[2]}},
            {y.data + b * y.strides[0] + c * y.strides[3], {1, H, columns}, {0, y.strides[1], y.strides[2]}}};
    };
    serial alone;
    const std::size_t each = of(0, 0).scratch_bytes(alone);
    const index_t channels = C, tasks = y.size() > 0 ? B * C : 0;
    in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(workers(pool, tasks)) * each; },
        [&](auto& pool, std::byte* memory) {
            for_tasks(pool, tasks, [&](index_t task, index_t worker) {
                of(task / channels, task % channels).run(alone, memory + static_cast<std::size_t>(worker) * each);
            });
        },
        policies...);
}

/// kernels (B, C, k, k), k odd and at most 63; x, y (B, H, columns, C). Policies: on{pool, arena}.
template <class A = default_arch, class K, class X, class Y, class... P>
void hyperzzw_local(const view<K>& kernels, const view<X>& x, const view<Y>& y, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "hyperzzw_local";
    const index_t k = kernels.shape[2];
    require_argument(k % 2 == 1 && k <= 63, op, "kernels have ", k, " rows, an odd number and at most 63 is asked for");
    check_image(op, x, kernels, {y.shape[0], y.shape[3], k, k}, y, policies...);
    check_apart(op, writes("y", y), reads("x", x));
    using T = accumulator<std::remove_const_t<K>, std::remove_const_t<X>, Y>;
    const local_call<A, T, std::remove_const_t<X>, std::remove_const_t<K>, Y> call{x, kernels, y};
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

/// W (C, H, columns); x, y (B, H, columns, C); y may be x itself. Policies: on{pool}.
template <class A = default_arch, class W, class X, class Y, class... P>
void hyperzzw_square(const view<W, 3>& w, const view<X>& x, const view<Y>& y, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "hyperzzw_square";
    check_image(op, x, w, {y.shape[3], y.shape[1], y.shape[2]}, y, policies...);
    check_same_or_apart(op, writes("y", y), reads("x", x));
    using T = accumulator<std::remove_const_t<W>, std::remove_const_t<X>, Y>;
    const index_t columns = std::max<index_t>(1, y.shape[2]);
    each_token(pick<roles::context>(calling_thread{}, policies...), y.shape[0], y.shape[1] * y.shape[2], y.shape[3],
               [&](index_t b, index_t t) {
                   const index_t i = t / columns, j = t % columns;
                   const view<W, 1> at{w.data + i * w.strides[1] + j * w.strides[2], {w.shape[0]}, {w.strides[0]}};
                   const auto square = [](const auto& p, const auto& by) { return p * by * p; };
                   map_row<A, T>(pixel(y, b, i, j), square, pixel(x, b, i, j), at);
               });
}

/// w (C); x, y (B, H, columns, C); y may be x itself. Policies: on{pool, arena}.
template <class A = default_arch, class W, class X, class Y, class... P>
void hyperzzw_channels(const view<W, 1>& w, const view<X>& x, const view<Y>& y, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "hyperzzw_channels";
    check_image(op, x, w, {y.shape[3]}, y, policies...);
    check_same_or_apart(op, writes("y", y), reads("x", x));
    using T = accumulator<std::remove_const_t<W>, std::remove_const_t<X>, Y>;
    const index_t H = y.shape[1], columns = std::max<index_t>(1, y.shape[2]);
    const auto run = [&](carver& from, const auto& with) {
        const auto gates = dense(from.take<T>(y.shape[0] * y.shape[3]), {1, y.shape[0], y.shape[3]});
        if (from.counts()) return;
        const T share = 1 / static_cast<T>(std::max<index_t>(1, H * y.shape[2]));
        for_tasks(*with.pool, y.shape[0], [&](index_t b, index_t) {
            const auto sum = row_of(gates, 0, b);
            std::fill_n(sum.data, sum.shape[0], T(0));
            for (index_t i = 0; i < H; ++i)
                for (index_t j = 0; j < y.shape[2]; ++j) map_row<A, T>(sum, sum_of, sum, pixel(x, b, i, j));
            const auto gate = [share](const auto& all, const auto& by) {
                const auto mean = all * std::remove_cvref_t<decltype(all)>(share);
                return sigmoid(by * mean * mean);
            };
            map_row<A, T>(sum, gate, sum, w);
        });
        each_token(with, y.shape[0], H * y.shape[2], y.shape[3], [&](index_t b, index_t t) {
            const index_t i = t / columns, j = t % columns;
            map_row<A, T>(pixel(y, b, i, j), product_of, pixel(x, b, i, j), row_of(gates, 0, b));
        });
    };
    in_shared_scratch(op, run, pick<roles::context>(calling_thread{}, policies...));
}

}  // namespace heed::inline HEED_ABI
