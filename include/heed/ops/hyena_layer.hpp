// The Hyena operator [55] as a layer, and HyenaDNA's [6]: projection, short convolution, hyena, projection.
//
//   u = x W_in^T + b_in;  u_c <- short_c conv u_c + b_c, causal, a few taps;  y = hyena(u) W_out^T + b_out
// x, y (b, n, D), any strides; C channels inside. The channels go through in groups, each adding its part to y, so that
// what a long sequence needs beside x and y is the streams of one group, its filters, and what all filters share.
// Memory for N tokens, order p, groups of g channels: (p + 2) g N + 5 g N + W N numbers.
#pragma once

#include "hyena.hpp"
#include "implicit_filter.hpp"

namespace heed::inline HEED_ABI {

template <std::floating_point T>
struct hyena_weights {
    using matrix = typename implicit_filter<T>::matrix;
    using column = typename implicit_filter<T>::column;

    index_t order;               // p
    matrix in;                   // ((p + 1) C, D): x_0, ..., x_(p-1), v
    column in_bias;              // ((p + 1) C)
    matrix short_taps;           // ((p + 1) C, taps), the newest token first
    column short_bias;           // ((p + 1) C)
    implicit_filter<T> filters;  // ((p - 1) C): o of channel c is c (p - 1) + o
    column skip;                 // ((p - 1) C), as the filters
    matrix out;                  // (D, C)
    column out_bias;             // (D)

    index_t channels() const { return out.cols(); }
};

struct hyena_layer_options {
    index_t channels_at_once = 16;
    /// Whether the spectra of all filters are made once, for calls of any length up to this; 0: anew for each call.
    index_t kept_length = 0;
};

template <std::floating_point T, class A = default_arch>
class hyena_layer {
    using matrix = typename implicit_filter<T>::matrix;
    using filter_type = convolution_filter<T, A>;

public:
    explicit hyena_layer(hyena_weights<T> weights, const hyena_layer_options& options = {})
        : w_(std::move(weights)), group_(options.channels_at_once), kept_length_(options.kept_length) {
        check();
        if (kept_length_ > 0) {
            const matrix hidden = w_.filters.hidden(kept_length_);
            for (index_t c = 0; c < C(); c += group_) kept_.push_back(filters_of(hidden, group(c)));
        }
    }

    /// x, y (b, n, D). Policies: on{pool}.
    template <class X, class Y, class... Policies>
    void operator()(const X& x, Y&& y, const Policies&... policies) const {
        const auto in = as_view(x);
        const auto out = as_view(y);
        const auto [B, N, D] = in.shape;
        require_shape(D == w_.in.cols(), op, "x has ", D, " channels, the weights ask for ", w_.in.cols());
        require_shape(out.shape[0] == B && out.shape[1] == N && out.shape[2] == w_.out.rows(), op, "y is (",
                      out.shape[0], ", ", out.shape[1], ", ", out.shape[2], "), asked for (", B, ", ", N, ", ",
                      w_.out.rows(), ")");
        require_shape(!overlap(in, out), op, "y overlaps x");
        const index_t most = kept_length_ > 0 ? kept_length_ : w_.filters.longest();
        require_argument(N <= most, op, "x has ", N, " tokens, the filters at most ", most);
        if (N == 0 || B == 0) return;
        auto& pool = *detail::pick<roles::context>(detail::calling_thread{}, policies...).pool;
        const matrix hidden = kept_length_ > 0 ? matrix() : w_.filters.hidden(N);
        const index_t streams = w_.order + 1;
        std::vector<T> memory(static_cast<std::size_t>((streams + 1) * group_ * N));
        for (index_t c = 0; c < C(); c += group_) {
            const range some = group(c);
            const auto made = kept_length_ > 0 ? std::vector<filter_type>() : filters_of(hidden, some);
            const auto& filters = kept_length_ > 0 ? kept_[static_cast<std::size_t>(c / group_)] : made;
            const auto u = channels(memory.data(), {1, streams * some.size(), N});
            const auto v = channels(memory.data() + streams * group_ * N, {1, some.size(), N});
            for (index_t b = 0; b < B; ++b) {
                project(pool, slice(in, 0, range{b, b + 1}), some, u);
                hyena(u, std::span<const filter_type>(filters), v, on(pool));
                add_projection(pool, v, some, slice(out, 0, range{b, b + 1}));
            }
        }
    }

private:
    static constexpr const char* op = "hyena_layer";
    static constexpr index_t block = 2048;  // tokens of a task: its streams stay in a cache

    index_t C() const { return w_.channels(); }
    range group(index_t c) const { return {c, std::min(C(), c + group_)}; }

    void check() const {
        const index_t p = w_.order, all = (p + 1) * C();
        require_argument(p >= 2, op, "the order is ", p, ", the least is 2");
        require_argument(group_ >= 1, op, "groups of ", group_, " channels");
        const auto fits = [](const char* name, index_t rows, index_t want) {
            require_shape(rows == want, op, name, " has ", rows, " rows, asked for ", want);
        };
        fits("in", w_.in.rows(), all);
        fits("in_bias", w_.in_bias.size(), all);
        fits("short_taps", w_.short_taps.rows(), all);
        fits("short_bias", w_.short_bias.size(), all);
        fits("the filters' last layer", w_.filters.channels(), (p - 1) * C());
        fits("skip", w_.skip.size(), (p - 1) * C());
        fits("out_bias", w_.out_bias.size(), w_.out.rows());
        require_argument(kept_length_ >= 0 && kept_length_ <= w_.filters.longest(), op, "kept_length is ", kept_length_,
                         ", the filters reach ", w_.filters.longest());
    }

    std::vector<filter_type> filters_of(const matrix& hidden, range some) const {
        const index_t N = hidden.cols(), p = w_.order;
        std::vector<filter_type> made;
        matrix taps(some.size(), N);
        std::vector<T> skip(static_cast<std::size_t>(some.size()));
        for (index_t o = 0; o < p - 1; ++o) {
            w_.filters.taps(hidden, some.first * (p - 1) + o, p - 1, dense(taps.data(), {some.size(), N}));
            for (index_t c = some.first; c < some.last; ++c) skip[c - some.first] = w_.skip[c * (p - 1) + o];
            made.emplace_back(dense(taps.data(), {some.size(), N}), dense(skip.data(), {some.size()}),
                              filter_options{.longest = N});
        }
        return made;
    }

    /// The rows of some channels in every stream.
    template <class M>
    M rows_of(const M& from, range some) const {
        M rows((w_.order + 1) * some.size(), from.cols());
        for (index_t s = 0; s <= w_.order; ++s)
            rows.middleRows(s * some.size(), some.size()) = from.middleRows(s * C() + some.first, some.size());
        return rows;
    }

    /// Tokens of x (1, n, D) as rows, (tokens, D).
    template <class X>
    static matrix tokens_of(const view<X, 3>& x, range tokens) {
        matrix rows(tokens.size(), x.shape[2]);
        for (index_t n = 0; n < tokens.size(); ++n)
            widen_row<A>(&x(0, tokens.first + n, 0), x.strides[2], x.shape[2], rows.row(n).data());
        return rows;
    }

    /// u = the short convolution of the projection of x, block by block, each with the tokens before it once more.
    template <class E, class X>
    void project(E& pool, const view<X, 3>& x, range some, const view<T, 3>& u) const {
        const index_t N = x.shape[1], rows = u.shape[2], K = w_.short_taps.cols(), kept = std::max<index_t>(0, K - 1);
        const matrix in = rows_of(w_.in, some), taps = rows_of(w_.short_taps, some);
        const auto in_bias = rows_of(w_.in_bias, some), short_bias = rows_of(w_.short_bias, some);
        const filter_type filter(dense(taps.data(), {rows, K}), filter_options{.form = convolution_form::direct});
        for_tasks(pool, ceil_div(N, block), [&](index_t task, index_t) {
            const range tokens{task * block, std::min(N, (task + 1) * block)};
            const range before{std::max<index_t>(0, tokens.first - kept), tokens.first};
            const matrix now = (in * tokens_of(x, tokens).transpose()).colwise() + in_bias;
            matrix held = matrix::Zero(rows, kept);
            if (!before.empty())
                held.rightCols(before.size()) = (in * tokens_of(x, before).transpose()).colwise() + in_bias;
            convolution(channels(now.data(), {1, rows, tokens.size()}), filter, slice(u, 1, tokens),
                        channel_bias(dense(short_bias.data(), {rows})), past(dense(held.data(), {1, rows, kept})));
        });
    }

    /// y += v W_out^T of some channels; the first of them add the bias.
    template <class E, class Y>
    void add_projection(E& pool, const view<T, 3>& v, range some, const view<Y, 3>& y) const {
        const index_t N = v.shape[1], D = y.shape[2];
        const matrix out = w_.out.middleCols(some.first, some.size());
        for_tasks(pool, ceil_div(N, block), [&](index_t task, index_t) {
            const range tokens{task * block, std::min(N, (task + 1) * block)};
            const Eigen::Map<const matrix, 0, Eigen::OuterStride<>> part(
                &v(0, tokens.first, 0), some.size(), tokens.size(), Eigen::OuterStride<>(v.strides[2]));
            matrix sum =
                some.first == 0 ? matrix(w_.out_bias.transpose().replicate(tokens.size(), 1)) : tokens_of(y, tokens);
            sum.noalias() += part.transpose() * out.transpose();
            for (index_t n = 0; n < tokens.size(); ++n)
                narrow_row<A>(sum.row(n).data(), D, &y(0, tokens.first + n, 0), y.strides[2]);
        });
    }

    hyena_weights<T> w_;
    index_t group_, kept_length_;
    std::vector<std::vector<filter_type>> kept_;
};

}  // namespace heed::inline HEED_ABI
