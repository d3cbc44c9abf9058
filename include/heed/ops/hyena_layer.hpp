// The Hyena operator [55] as a layer, and HyenaDNA's [6]: projection, short convolution, hyena, projection.
//
//   u = x W_in^T + b_in;  u_c <- short_c conv u_c + b_c, causal, a few taps;  y = hyena(u) W_out^T + b_out
// x, y (b, n, D), any strides; C channels inside. The channels go through in groups, each adding its part to y, so that
// what a long sequence needs beside x and y is the streams of one group, its filters, and what all filters share.
// Memory for N tokens, order p, groups of g channels: (p + 2) g N + 5 g N + W N numbers, and B N D sums where y is
// narrower than the arithmetic, or its channels are not contiguous.
#pragma once

#include "causal_conv.hpp"
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
    matrix short_taps;           // ((p + 1) C, taps), the newest token first, at least one
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
    using column = typename implicit_filter<T>::column;
    using filter_type = convolution_filter<T, A>;

public:
    explicit hyena_layer(hyena_weights<T> weights, const hyena_layer_options& options = {})
        : w_(std::move(weights)), group_(options.channels_at_once), kept_length_(options.kept_length) {
        check();
        for (index_t c = 0; c < C(); c += group_) groups_.push_back(weights_of(group(c)));
        if (kept_length_ > 0) {
            const matrix hidden = w_.filters.hidden(kept_length_);
            for (index_t c = 0; c < C(); c += group_) kept_.push_back(filters_of(hidden, group(c)));
        }
    }

    /// What B sequences leave behind, as long as kept_length: the last inputs of the short convolutions, and those of
    /// each filter. Copies are snapshots.
    class state {
    public:
        index_t sequences() const { return B_; }
        /// Tokens seen.
        index_t tokens() const { return seen_; }

    private:
        friend hyena_layer;
        state(index_t B, index_t streams, index_t C, index_t kept, index_t pasts)
            : B_(B),
              C_(C),
              kept_(kept),
              past_(pasts),
              short_(static_cast<std::size_t>(B * streams * C * kept)),
              long_(static_cast<std::size_t>((streams - 2) * B * C * pasts)) {}
        /// Inputs of stream s before the short convolution, (channels, taps - 1).
        view<T, 2> projected(index_t b, index_t s, range some) {
            return slice(view<T, 2>{short_.data() + (s * B_ + b) * C_ * kept_, {C_, kept_}, {kept_, 1}}, 0, some);
        }
        /// Inputs of filter o, (1, channels, longest - 1).
        view<T, 3> inputs(index_t o, index_t b, range some) {
            return slice(dense(long_.data() + (o * B_ + b) * C_ * past_, {1, C_, past_}), 1, some);
        }
        index_t B_, C_, kept_, past_, seen_ = 0;
        std::vector<T> short_, long_;
    };
    state start(index_t B) const {
        require_argument(B >= 0, op, "a state of ", B, " sequences");
        require_argument(kept_length_ > 0, op, "a stream needs filters that are kept, kept_length is 0");
        return {B, w_.order + 1, C(), kept_inputs(), kept_length_ - 1};
    }

    /// x, y (b, n, D). Policies: on{pool, arena}. Products of matrices, and filters that are not kept, have memory of
    /// their own. Throws shape_error or argument_error before y is touched.
    template <class X, class Y, class... Policies>
    void operator()(const X& x, Y&& y, const Policies&... policies) const {
        run(as_view(x), as_view(y), nullptr, policies...);
    }
    /// The same for the tokens after those that s has seen, N = 1 a step of decoding; all of them at most kept_length.
    template <class X, class Y, class... Policies>
    void operator()(const X& x, Y&& y, state& s, const Policies&... policies) const {
        run(as_view(x), as_view(y), &s, policies...);
    }

private:
    static constexpr const char* op = "hyena_layer";
    static constexpr index_t block = 2048;  // tokens of a task: its streams stay in a cache

    index_t C() const { return w_.channels(); }
    /// Tokens that a short convolution looks back.
    index_t kept_inputs() const { return w_.short_taps.cols() - 1; }
    range group(index_t c) const { return {c, std::min(C(), c + group_)}; }

    void check() const {
        const index_t p = w_.order, all = (p + 1) * C();
        require_argument(p >= 2, op, "the order is ", p, ", the least is 2");
        require_argument(group_ >= 1, op, "groups of ", group_, " channels");
        require_argument(C() >= 1, op, "there are no channels");
        const auto fits = [](const char* name, index_t rows, index_t want) {
            require_shape(rows == want, op, name, " has ", rows, " rows, asked for ", want);
        };
        fits("in", w_.in.rows(), all);
        fits("in_bias", w_.in_bias.size(), all);
        fits("short_taps", w_.short_taps.rows(), all);
        require_shape(w_.short_taps.cols() >= 1, op, "there are no short taps");
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

    /// What a group of channels needs of the weights: rows of its channels in every stream.
    struct group_weights {
        matrix in;                  // (streams g, D)
        column in_bias;             // (streams g)
        std::vector<T> taps, bias;  // (streams g, K), the oldest token first; (streams g)
        matrix out;                 // (g, D)
    };
    group_weights weights_of(range some) const {
        const index_t K = w_.short_taps.cols(), g = some.size(), rows = (w_.order + 1) * g;
        group_weights of{
            matrix(rows, w_.in.cols()), column(rows), {}, {}, w_.out.middleCols(some.first, g).transpose()};
        for (index_t s = 0; s <= w_.order; ++s)
            for (index_t c = some.first; c < some.last; ++c) {
                const index_t from = s * C() + c, to = s * g + c - some.first;
                of.in.row(to) = w_.in.row(from);
                of.in_bias[to] = w_.in_bias[from];
                of.bias.push_back(w_.short_bias[from]);
                for (index_t k = K; k-- > 0;) of.taps.push_back(w_.short_taps(from, k));
            }
        return of;
    }

    template <class X, class Y, class... Policies>
    void run(const view<X, 3>& x, const view<Y, 3>& y, state* past, const Policies&... policies) const {
        static_assert((has_role<Policies, roles::context> && ...), "heed: an argument is not a policy of hyena_layer");
        const auto [B, N, D] = x.shape;
        require_shape(D == w_.in.cols(), op, "x has ", D, " channels, the weights ask for ", w_.in.cols());
        require_shape(y.shape[0] == B && y.shape[1] == N && y.shape[2] == w_.out.rows(), op, "y is (", y.shape[0], ", ",
                      y.shape[1], ", ", y.shape[2], "), asked for (", B, ", ", N, ", ", w_.out.rows(), ")");
        detail::check_written(op, detail::writes("y", y));
        require_shape(!overlap(x, y), op, "y overlaps x");
        const index_t most = kept_length_ > 0 ? kept_length_ : w_.filters.longest(), seen = past ? past->seen_ : 0;
        require_argument(seen + N <= most, op, "x has ", N, " tokens after ", seen, ", the filters at most ", most);
        if (past)
            require_shape(
                past->B_ == B && past->C_ == C() && past->past_ == kept_length_ - 1 && past->kept_ == kept_inputs(), op,
                "the state is of ", past->B_, " sequences of another layer, x of ", B);
        if (N == 0 || B == 0) return;
        const auto compute = [&](carver& from, const auto& with) { run_groups(from, x, y, past, with); };
        detail::in_shared_scratch(op, compute, detail::pick<roles::context>(detail::calling_thread{}, policies...));
    }

    template <class X, class Y, class With>
    void run_groups(carver& from, const view<X, 3>& x, const view<Y, 3>& y, state* past, const With& with) const {
        const index_t B = x.shape[0], N = x.shape[1], D = y.shape[2], streams = w_.order + 1;
        const index_t most = std::min(group_, C());
        T* const u_memory = from.take<T>(streams * most * N);
        T* const v_memory = from.take<T>(most * N);
        const bool in_place = sums_in_place(y);
        view<T, 3> sums = dense(from.take<T>(in_place ? 0 : B * N * D), {B, N, D});
        if constexpr (std::is_same_v<Y, T>)
            if (in_place) sums = y;
        const project_scratch scratch(from, *this, *with.pool, N);
        const matrix hidden = from.counts() || kept_length_ > 0 ? matrix() : w_.filters.hidden(N);
        for (index_t c = 0; c < C(); c += group_) {
            if (from.counts() && c > 0 && c + group_ < C()) continue;  // all groups but the last are alike
            const range some = group(c);
            const auto i = static_cast<std::size_t>(c / group_);
            const auto made = kept_length_ > 0 ? std::vector<filter_type>()
                              : from.counts()  ? counted_filters(some.size(), N)
                                               : filters_of(hidden, some);
            const std::span<const filter_type> filters(kept_length_ > 0 ? kept_[i] : made);
            const auto u = channels(u_memory, {1, streams * some.size(), N});
            const auto v = channels(v_memory, {1, some.size(), N});
            for (index_t b = 0; b < B; ++b) {
                if (!from.counts()) project(*with.pool, scratch, slice(x, 0, range{b, b + 1}), b, i, u, past);
                std::vector<view<T, 3>> before;
                for (index_t o = 0; past && o < w_.order - 1; ++o) before.push_back(past->inputs(o, b, some));
                hyena(u, filters, v, pasts<T>(before), with);
                if (from.counts()) break;
                add_projection(*with.pool, v, i, slice(sums, 0, range{b, b + 1}));
            }
        }
        if (from.counts()) return;
        if (past) past->seen_ += N;
        if (!in_place)
            for (index_t b = 0; b < B; ++b)
                for (index_t n = 0; n < N; ++n) narrow_row<A>(&sums(b, n, 0), D, &y(b, n, 0), y.strides[2]);
    }

    /// Whether the groups add up in y itself: sums are T, a row of them contiguous.
    template <class Y>
    static bool sums_in_place(const view<Y, 3>& y) {
        return std::is_same_v<Y, T> && y.strides[2] == 1 && y.strides[1] >= y.shape[2];
    }

    /// Filters of N taps that only tell what scratch they need.
    std::vector<filter_type> counted_filters(index_t channels, index_t N) const {
        std::vector<filter_type> made;
        for (index_t o = 0; o < w_.order - 1; ++o)
            made.emplace_back(view<const T, 2>{nullptr, {channels, N}, {N, 1}}, filter_options{.longest = N});
        return made;
    }

    /// Scratch of the workers that project blocks of N tokens at most.
    struct project_scratch {
        index_t tokens, inputs, projected, held;
        std::size_t conv = 0;
        std::byte* memory;
        T* left;  // what the last block leaves to the state

        template <class E>
        project_scratch(carver& from, const hyena_layer& layer, E& pool, index_t N)
            : tokens(std::min(block, N) + layer.kept_inputs()) {
            const index_t rows = layer.groups_[0].in.rows(), K = layer.kept_inputs() + 1;
            serial alone;
            const view<T, 3> none{nullptr, {1, std::min(block, N), rows}, {0, 1, tokens}};
            causal_conv<A>(none, view<const T, 2>{nullptr, {rows, K}, {K, 1}},
                           view<T, 3>{nullptr, none.shape, {0, 1, N}}, scratch_size(alone, conv));
            inputs = tokens * layer.w_.in.cols(), projected = rows * tokens, held = rows * (K - 1);
            memory = from.take<std::byte>(workers(pool, ceil_div(N, block)) * static_cast<index_t>(bytes()));
            left = from.take<T>(held);
        }
        std::size_t bytes() const {
            carver count;
            count.take<T>(inputs), count.take<T>(projected), count.take<T>(held);
            count.take<std::byte>(static_cast<index_t>(conv));
            return count.used();
        }
    };

    /// u = the short convolution of the projection of x, block by block, each with the tokens before it once more.
    template <class E, class X>
    void project(E& pool, const project_scratch& scratch, const view<X, 3>& x, index_t b, std::size_t i,
                 const view<T, 3>& u, state* past) const {
        const group_weights& w = groups_[i];
        const range some = group(static_cast<index_t>(i) * group_);
        const index_t N = x.shape[1], D = x.shape[2], rows = u.shape[2], kept = kept_inputs();
        // Before the first token: what the state holds, or zeros.
        const auto earlier = [&](index_t r, index_t k) {
            return past ? past->projected(b, r / some.size(), some)(r % some.size(), k) : T(0);
        };
        for_tasks(pool, ceil_div(N, block), [&](index_t task, index_t worker) {
            carver from(scratch.memory + static_cast<std::size_t>(worker) * scratch.bytes());
            const range tokens{task * block, std::min(N, (task + 1) * block)};
            const range read{std::max<index_t>(0, tokens.first - kept), tokens.last};
            Eigen::Map<matrix> in(from.take<T>(scratch.inputs), read.size(), D);
            for (index_t n = 0; n < read.size(); ++n)
                widen_row<A>(&x(0, read.first + n, 0), x.strides[2], D, in.row(n).data());
            Eigen::Map<matrix> now(from.take<T>(scratch.projected), rows, read.size());
            now.noalias() = w.in * in.transpose();
            now.colwise() += w.in_bias;
            const index_t back = tokens.first - read.first;
            const auto held = dense(from.take<T>(scratch.held), {1, rows, kept});
            for (index_t r = 0; r < rows; ++r)
                for (index_t k = 0; k < kept; ++k)
                    held(0, r, k) = k < kept - back ? earlier(r, k + tokens.first) : now(r, k - (kept - back));
            serial alone;
            arena rest(std::span(from.take<std::byte>(static_cast<index_t>(scratch.conv)), scratch.conv));
            causal_conv<A>(view<const T, 3>{now.data() + back, {1, tokens.size(), rows}, {0, 1, read.size()}},
                           dense(w.taps.data(), {rows, kept + 1}), slice(u, 1, tokens),
                           conv_bias(dense(w.bias.data(), {rows})), carry(held), on(alone, rest));
            if (tokens.last == N) std::copy_n(held.data, rows * kept, scratch.left);
        });
        for (index_t r = 0; past && r < rows; ++r)
            for (index_t k = 0; k < kept; ++k)
                past->projected(b, r / some.size(), some)(r % some.size(), k) = scratch.left[r * kept + k];
    }

    /// y += v W_out^T of some channels; the first of them add the bias.
    template <class E>
    void add_projection(E& pool, const view<T, 3>& v, std::size_t i, const view<T, 3>& y) const {
        const index_t N = v.shape[1], D = y.shape[2];
        for_tasks(pool, ceil_div(N, block), [&](index_t task, index_t) {
            const range tokens{task * block, std::min(N, (task + 1) * block)};
            const Eigen::Map<const matrix, 0, Eigen::OuterStride<>> part(
                &v(0, tokens.first, 0), v.shape[2], tokens.size(), Eigen::OuterStride<>(v.strides[2]));
            Eigen::Map<matrix, 0, Eigen::OuterStride<>> sum(&y(0, tokens.first, 0), tokens.size(), D,
                                                            Eigen::OuterStride<>(y.strides[1]));
            if (i == 0) sum.rowwise() = w_.out_bias.transpose();
            sum.noalias() += part.transpose() * groups_[i].out;
        });
    }

    hyena_weights<T> w_;
    index_t group_, kept_length_;
    std::vector<group_weights> groups_;
    std::vector<std::vector<filter_type>> kept_;
};

}  // namespace heed::inline HEED_ABI
