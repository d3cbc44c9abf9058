// HyperZ.Z.W [43] along one axis: a convolution whose filter is multiplied by the sequence itself.
//
//   y[b, t, c] = sum_k W[c, k] z[b, k, c] z[b, t + ahead - k, c] + bias[c],  k < N; ahead 0 (causal) or N / 2 (centred)
// The filter belongs to a sample, so its spectrum is made for each, in the same memory: two transforms more than a
// fixed filter, O(N log N). The alignment is not settled by the publication, so both are here.
#pragma once

#include "../engine/convolution.hpp"
#include "row_maps.hpp"

namespace heed::inline HEED_ABI {

enum class alignment { causal, centred };

namespace detail {

/// The outputs y (n) that taps tap(k), k < n, reach and that are not finite are NaN.
template <class Tap, class Y>
void spoil_reached(const Tap& tap, index_t ahead, const view<Y, 1>& y) {
    const index_t N = y.shape[0];
    index_t next = 0, last = -N;  // the last tap that is not finite
    for (index_t t = 0; t < N; ++t) {
        for (; next < std::min(N, t + ahead + 1); ++next)
            if (!std::isfinite(tap(next))) last = next;
        if (last > t + ahead - N) y(t) = static_cast<Y>(std::numeric_limits<float>::quiet_NaN());
    }
}

}  // namespace detail

/// W (c, k), K >= N; z, y (b, n, c). Policies: channel_bias{b}, on{pool, arena}, the arena for one convolution.
template <class A = default_arch, class W, class Z, class Y, class... Policies>
void hyperzzw(const W& w, const Z& z, Y&& y, alignment how, const Policies&... policies) {
    constexpr const char* op = "hyperzzw";
    const auto slow = as_view(w);
    const auto fast = as_view(z);
    const auto out = as_view(y);
    using T = accumulator<typename decltype(slow)::value_type, typename decltype(fast)::value_type,
                          typename decltype(out)::value_type>;
    const auto [B, N, C] = fast.shape;
    require_shape(slow.shape[0] == C && slow.shape[1] >= N, op, "W is (", slow.shape[0], ", ", slow.shape[1],
                  "), z asks for (", C, ", ", N, ") at least");
    require_shape(out.shape == fast.shape, op, "y is (", out.shape[0], ", ", out.shape[1], ", ", out.shape[2], "), z (",
                  B, ", ", N, ", ", C, ")");
    require_shape(!overlap(out, fast) && !overlap(out, slow), op, "y overlaps z or W");
    if (out.size() == 0) return;
    const auto by_channel = [C = C, N = N](const auto* data, const extents<2>& strides) {
        return view<const std::remove_cvref_t<decltype(*data)>, 3>{data, {1, C, N}, {0, strides[0], strides[1]}};
    };
    const index_t ahead = how == alignment::centred ? N / 2 : 0;
    std::vector<T> memory(static_cast<std::size_t>(C * N));
    const auto taps = dense(memory.data(), {C, N});
    convolution_filter<T, A> filter(taps, filter_options{.longest = N, .ahead = ahead});
    for (index_t b = 0; b < B; ++b) {
        detail::map_rows<A, T>(detail::pick<roles::context>(detail::calling_thread{}, policies...),
                               dense(memory.data(), {1, C, N}), detail::product_of,
                               by_channel(slow.data, slow.strides),
                               by_channel(&fast(b, 0, 0), {fast.strides[2], fast.strides[1]}));
        const bool finite = all_finite<A, T>(memory.data(), 1, C * N);
        if (!finite)
            std::replace_if(memory.begin(), memory.end(), [](T tap) { return !std::isfinite(tap); }, T(0));
        filter.assign(taps);
        const range one{b, b + 1};
        convolution(slice(fast, 0, one), filter, slice(out, 0, one), policies...);
        for (index_t c = 0; c < C && !finite; ++c)
            detail::spoil_reached(
                [&](index_t k) { return static_cast<T>(slow(c, k)) * static_cast<T>(fast(b, k, c)); }, ahead,
                view<std::remove_pointer_t<decltype(out.data)>, 1>{&out(b, 0, c), {N}, {out.strides[1]}});
    }
}

}  // namespace heed::inline HEED_ABI
