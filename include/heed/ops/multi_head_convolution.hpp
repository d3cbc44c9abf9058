// Multi-head long convolution, of Laughing Hyena [9]: linear attention whose decay is any filter, one a head.
//
//   o_t = q_t^T sum_(j <= t) h[t - j] k_j v_j^T  per head;   q, k (b, h, n, d), v, o (b, h, n, e), h (heads, taps)
// For h[t] = lambda^t it is linear attention with a scalar decay. Cost D E convolutions a head: small heads are meant.
#pragma once

#include "../engine/convolution.hpp"

namespace heed::inline HEED_ABI {

/// Policies: on{pool, arena}; the filters have memory of their own. Sums are float, or double if an operand is.
template <class A = default_arch, class Q, class K, class V, class H, class O, class... Policies>
void multi_head_convolution(const Q& q, const K& k, const V& v, const H& h, O&& o, const Policies&... policies) {
    constexpr const char* op = "multi_head_convolution";
    static_assert((has_role<Policies, roles::context> && ...),
                  "heed: an argument is not a policy of multi_head_convolution");
    const auto qs = as_view(q);
    const auto ks = as_view(k);
    const auto vs = as_view(v);
    const auto hs = as_view(h);
    const auto os = as_view(o);
    using T = accumulator<typename decltype(qs)::value_type, typename decltype(ks)::value_type,
                          typename decltype(vs)::value_type, typename decltype(hs)::value_type,
                          typename decltype(os)::value_type>;
    const index_t B = qs.shape[0], heads = qs.shape[1], N = qs.shape[2], D = qs.shape[3], E = vs.shape[3];
    require_shape(ks.shape == qs.shape, op, "k is not of the shape of q");
    require_shape(vs.shape[0] == B && vs.shape[1] == heads && vs.shape[2] == N, op, "v is (", vs.shape[0], ", ",
                  vs.shape[1], ", ", vs.shape[2], "), q (", B, ", ", heads, ", ", N, ")");
    require_shape(os.shape == vs.shape, op, "o is not of the shape of v");
    require_shape(hs.shape[0] == heads, op, "h has ", hs.shape[0], " filters, q ", heads, " heads");
    require_shape(!overlap(os, qs) && !overlap(os, ks) && !overlap(os, vs) && !overlap(os, hs), op,
                  "o overlaps an input");
    if (os.size() == 0) return;
    const index_t used = std::min(hs.shape[1], N);
    for (index_t head = 0; head < heads && used > 0; ++head)
        require_argument(all_finite<A, T>(&hs(head, 0), hs.strides[1], used), op, "head ", head,
                         " has a tap that is not finite");
    // Channels in the lanes of a transform share a filter, so that its spectrum is held once for each width of them.
    static constexpr index_t G = fft_plan<T, A>::sequences;
    const auto rows = [N](const auto& x, index_t b, index_t head, T* to) {
        for (index_t d = 0; d < x.shape[3]; ++d) widen_row<A>(&x(b, head, 0, d), x.strides[2], N, to + d * N);
    };
    const auto run = [&](carver& from, const auto& with) {
        T *const qt = from.take<T>(N * D), *const kt = from.take<T>(N * D), *const vt = from.take<T>(N * E);
        T *const sum = from.take<T>(N * G), *const part = from.take<T>(N * G);
        // Channel d of memory that holds some, of which a call that counts has none.
        const auto at = [N](T* p, index_t d) { return p ? p + d * N : p; };
        for (index_t head = 0; head < (from.counts() ? 1 : heads); ++head) {
            const auto filter_of = [&](index_t width) {
                const view<std::remove_pointer_t<decltype(hs.data)>, 2> same{
                    from.counts() ? nullptr : hs.data + head * hs.strides[0], {width, hs.shape[1]}, {0, hs.strides[1]}};
                return convolution_filter<T, A>(same, filter_options{.longest = N});
            };
            const auto whole = filter_of(std::min(G, E)), rest = filter_of(E % G);
            for (index_t b = 0; b < (from.counts() ? 1 : B); ++b) {
                if (!from.counts()) rows(qs, b, head, qt), rows(ks, b, head, kt), rows(vs, b, head, vt);
                for (index_t e = 0; e < E; e += G) {
                    const index_t width = std::min(G, E - e);
                    const auto values = channels(at(vt, e), {1, width, N}), one = channels(part, {1, width, N});
                    if (!from.counts()) std::fill_n(sum, width * N, T(0));
                    for (index_t d = 0; d < (from.counts() ? std::min<index_t>(1, D) : D); ++d) {
                        const view<const T, 3> key{at(kt, d), {1, N, width}, {0, 1, 0}};
                        const view<const T, 3> query{at(qt, d), {1, N, width}, {0, 1, 0}};
                        convolution(values, width == G || E < G ? whole : rest, one, input_gate(key),
                                    output_gate(query), with);
                        if (from.counts()) continue;
                        for (index_t i = 0; i < width * N; ++i) sum[i] += part[i];
                    }
                    for (index_t c = 0; !from.counts() && c < width; ++c)
                        narrow_row<A>(sum + c * N, N, &os(b, head, 0, e + c), os.strides[2]);
                }
            }
        }
    };
    detail::in_shared_scratch(op, run, detail::pick<roles::context>(detail::calling_thread{}, policies...));
}

}  // namespace heed::inline HEED_ABI
