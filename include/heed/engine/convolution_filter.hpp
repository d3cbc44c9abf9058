// The filters of C channels, made ready once: their taps, and their spectra where a transform pays.
//
//   y[t] = sum_k h[k] x[t + ahead - k],  k < K;  ahead = 0 is causal
// A convolution is done in chunks of outputs, each a product of spectra modulo x^(2P) + 1 (tile/fft.hpp) or a direct
// sum. P is chosen by K and the length of the calls; a call of a few tokens is direct where that is less work. Memory:
// C (K + 2P) numbers.
#pragma once

#include <memory>

#include "../core/context.hpp"
#include "../core/view.hpp"
#include "../simd/convert.hpp"
#include "../tile/fft.hpp"

namespace heed::inline HEED_ABI {

/// How a convolution is done: by shape, or as asked.
enum class convolution_form { by_shape, direct, transform };

struct filter_options {
    /// No call has more tokens than this; taps that none of them needs are dropped. 0: calls of any length.
    index_t longest = 0;
    /// Taps that look ahead: h[0] meets x[t + ahead].
    index_t ahead = 0;
    convolution_form form = convolution_form::by_shape;
};

template <std::floating_point T, class A = default_arch>
class convolution_filter {
    using plan_type = fft_plan<T, A>;

public:
    /// taps (C, K), any storage type; without data, a filter that only tells what scratch its calls need. Throws
    /// argument_error where a tap is not finite.
    template <class H>
    explicit convolution_filter(const H& taps, const filter_options& options = {})
        : convolution_filter(as_view(taps), view<const T, 1>{}, options) {}

    /// With skip (C): y[t] += skip x[t], which is one more term of the tap that meets x[t].
    template <class H, class S>
    convolution_filter(const view<H, 2>& taps, const view<S, 1>& skip, const filter_options& options = {})
        : C_(taps.shape[0]), K_(taps.shape[1]), given_(K_), ahead_(options.ahead), longest_(options.longest) {
        constexpr const char* op = "convolution_filter";
        require_shape(C_ >= 0 && K_ >= 0, op, "taps are (", C_, ", ", K_, ")");
        require_argument(ahead_ >= 0 && ahead_ <= std::max<index_t>(0, K_ - 1), op, "ahead is ", ahead_, " of ", K_,
                         " taps");
        require_argument(longest_ >= 0, op, "longest is ", longest_);
        require_shape(!skip.data || skip.shape[0] == C_, op, "skip has ", skip.shape[0], " channels, taps have ", C_);
        if (longest_ > 0) {
            first_ = std::max<index_t>(0, ahead_ - (longest_ - 1));
            K_ = std::min(K_, ahead_ + longest_) - first_;
            ahead_ -= first_;
        }
        if (taps.data) {
            taps_.resize(static_cast<std::size_t>(C_ * K_));
            copy(taps, skip);
        }
        if (by_transform(options.form)) find_plan();
        if (plan_ && taps.data) {
            memory_ = arena(static_cast<std::size_t>(spectra_size()) * sizeof(T));
            find_spectra();
        }
        if (plan_ && options.form == convolution_form::by_shape) most_direct_ = direct_work();
    }

    /// Other taps (C, K), of the shape that the filter was made with, in place of what it has, a skip included. Nothing
    /// is allocated. Throws as the constructor does, before anything is changed.
    template <class H>
    void assign(const H& taps) {
        const auto h = as_view(taps);
        require_shape(h.shape[0] == C_ && h.shape[1] == given_, "convolution_filter", "the taps assigned are (",
                      h.shape[0], ", ", h.shape[1], "), those of before (", C_, ", ", given_, ")");
        require_argument(static_cast<index_t>(taps_.size()) == C_ * K_, "convolution_filter",
                         "taps are assigned to a filter made without any");
        for (index_t c = 0; c < C_; ++c) require_finite(h.data + c * h.strides[0], h.strides[1], given_, c);
        copy(h, view<const T, 1>{});
        if (plan_) find_spectra();
    }

    index_t channels() const { return C_; }
    /// Taps that are used.
    index_t taps() const { return K_; }
    index_t ahead() const { return ahead_; }
    index_t longest() const { return longest_; }
    std::size_t bytes() const {
        return (taps_.size() + static_cast<std::size_t>(C_ > 0 && plan_ ? spectra_size() : 0)) * sizeof(T);
    }

    /// Null where sums are direct.
    const plan_type* plan() const { return plan_.get(); }
    /// Whether a call of n tokens that meet this many taps is done by direct sums, although there is a plan.
    bool is_brief(index_t n, index_t taps) const { return n * taps <= most_direct_; }
    /// (K) of channel c, in the order of the inputs they meet: h[K - 1], ..., h[0].
    const T* taps_of(index_t c) const { return taps_.data() + c * K_; }
    /// Of the channels from c on that are transformed at once; c is a multiple of their number.
    const T* spectrum_of(index_t c) const { return spectra() + c / plan_type::sequences * group_size(); }

    /// Outputs that one transform gives.
    index_t chunk() const { return 2 * plan_->size() - K_ + 1; }
    /// Whether one transform does a call of N tokens without a past.
    bool at_once(index_t N) const { return 2 * plan_->size() >= std::max(N + K_ - 1 - ahead_, N + ahead_); }

private:
    template <class H, class S>
    void copy(const view<H, 2>& taps, const view<S, 1>& skip) {
        for (index_t c = 0; c < C_; ++c) {
            T* const row = taps_.data() + c * K_;
            widen_row<A>(taps.data + c * taps.strides[0] + first_ * taps.strides[1], taps.strides[1], K_, row);
            if (skip.data && K_ > 0) row[ahead_] += static_cast<T>(skip(c));
            std::reverse(row, row + K_);
            require_finite(row, 1, K_, c);
        }
    }
    template <class S>
    static void require_finite(const S* taps, index_t stride, index_t K, index_t channel) {
        require_argument(all_finite<A, T>(taps, stride, K), "convolution_filter", "channel ", channel,
                         " has a tap that is not finite");
    }

    /// Direct sums cost K multiply-adds an output, unaligned; a transform as much as about 32 of them.
    bool by_transform(convolution_form form) const {
        if (form != convolution_form::by_shape) return form == convolution_form::transform && K_ > 0 && C_ > 0;
        constexpr index_t break_even = 32;
        const index_t used = std::min<index_t>(C_, plan_type::sequences);
        return C_ > 0 && K_ * used > break_even * plan_type::sequences;
    }

    /// Multiply-adds a channel that take the time of a transform. One of P points costs P (8 log2 P + 20) operations
    /// for each of its sequences; a multiply-add of unaligned numbers counts as two.
    index_t direct_work() const {
        const auto P = static_cast<double>(plan_->size());
        const index_t used = std::min<index_t>(C_, plan_type::sequences);
        return static_cast<index_t>(P * (4 * std::log2(P) + 10)) * plan_type::sequences / used;
    }

    /// Time of a call by transforms of P points, in arbitrary units; of one output if calls have any length.
    double cost(index_t P) const {
        const double large = P * plan_type::sequences * 2 * static_cast<index_t>(sizeof(T)) > (1 << 19) ? 1.5 : 1;
        const double each = static_cast<double>(P) * (std::log2(static_cast<double>(P)) + 8) * large;
        const index_t outputs = 2 * P - K_ + 1;
        if (longest_ > 0 && 2 * P >= std::max(longest_ + K_ - 1 - ahead_, longest_ + ahead_)) return each;
        if (outputs < 1) return std::numeric_limits<double>::infinity();
        if (longest_ > 0) return each * static_cast<double>(ceil_div(longest_, outputs));
        return each / static_cast<double>(outputs);
    }

    void find_plan() {
        index_t best = plan_type::length_for((K_ + 1) / 2);
        for (index_t P = best; P <= plan_type::length_for(4 * std::max(K_, longest_)); P = plan_type::length_for(P + 1))
            if (cost(P) < cost(best)) best = P;
        plan_ = std::make_shared<plan_type>(best);
    }

    void find_spectra() {
        constexpr index_t G = plan_type::sequences;
        const T scale = 1 / static_cast<T>(plan_->size());
        for (index_t c = 0; c < C_; c += G) {
            T* const z = spectra() + c / G * group_size();
            detail::enter<true>(*plan_, z, [&](index_t s, index_t n) {
                alignas(64) T x[plan_type::L];
                for (index_t l = 0; l < plan_type::L; ++l)
                    x[l] = c + s < C_ && n + l < K_ ? taps_of(c + s)[K_ - 1 - n - l] : T(0);
                return load_aligned<pack<T, A>>(x);
            });
            detail::transform<false>(*plan_, z, z);
            for (index_t i = 0; i < group_size(); ++i) z[i] *= scale;
        }
    }

    T* spectra() const { return reinterpret_cast<T*>(memory_.data()); }
    index_t group_size() const { return plan_->block() * 2 * plan_type::L; }
    index_t spectra_size() const { return ceil_div(C_, plan_type::sequences) * group_size(); }

    index_t C_, K_, given_, first_ = 0, ahead_, longest_, most_direct_ = -1;  // taps: used, given, the first used
    std::vector<T> taps_;
    std::shared_ptr<const plan_type> plan_;
    arena memory_;
};

}  // namespace heed::inline HEED_ABI
