// What a state says of a frame, for hidden Markov models: diagonal Gaussians whose deviations are kept off 0 [42].
//
//   e[b,t,s] = -1/2 sum_d ((x_d - mean_d) / dev_d)^2 - sum_d log dev_d - D/2 log(2 pi),  dev = max(deviation, least)
// x (B, T, D), mean and deviation (B, T, N, D), strides of 0 where they are the same for all frames or sequences,
// e (B, T, N). Without the least deviation the likelihood of a state that fits a frame exactly has no bound.
// Cost: a division and a logarithm a frame, state and feature.
#pragma once

#include <numbers>

#include "../core/random.hpp"
#include "../engine/scan_operands.hpp"
#include "../engine/scratch.hpp"
#include "../simd/convert.hpp"

namespace heed::inline HEED_ABI {

/// Log densities e, which neural_hmm takes. Policies: on{pool, arena}. Throws shape_error or argument_error before e is
/// touched.
template <class A = default_arch, class X, class M, class S, class E, class... P>
void gaussian_emission(const view<X, 3>& x, const view<M, 4>& mean, const view<S, 4>& deviation, double least,
                       const view<E, 3>& e, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "gaussian_emission";
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of gaussian_emission");
    using T = accumulator<std::remove_const_t<X>, std::remove_const_t<M>, std::remove_const_t<S>, E>;
    using V = pack<T, A>;
    constexpr auto L = static_cast<index_t>(V::size);
    const auto out = writes("e", e);
    const auto [B, frames, N] = e.shape;
    const index_t D = x.shape[2];
    check_written(op, out);
    check_shape(op, reads("x", x), {B, frames, D}, "e");
    check_shape(op, reads("the mean", mean), {B, frames, N, D}, "e, x");
    check_shape(op, reads("the deviation", deviation), {B, frames, N, D}, "e, x");
    check_apart(op, out, reads("x", x));
    check_apart(op, out, reads("the mean", mean));
    check_apart(op, out, reads("the deviation", deviation));
    require_argument(least > 0, op, "the least deviation is ", least, ", it must be above 0");
    const index_t width = round_up(D, L), tasks = B * frames;
    const auto bytes = static_cast<std::size_t>(
        round_up(3 * width * static_cast<index_t>(sizeof(T)), static_cast<index_t>(arena::alignment)));
    const T norm = static_cast<T>(0.5 * std::log(2 * std::numbers::pi) * static_cast<double>(D));
    const auto run = [&](auto& pool, std::byte* scratch) {
        for_tasks(pool, tasks, [&](index_t task, index_t worker) {
            const index_t b = task / e.shape[1], t = task % e.shape[1];
            auto* const at = reinterpret_cast<T*>(scratch + static_cast<std::size_t>(worker) * bytes);
            T *const frame = at, *const centre = at + width, *const spread = at + 2 * width;
            std::fill_n(at, 2 * width, T(0));  // features beyond D: none off its mean, and a logarithm of 0
            std::fill_n(spread, width, T(1));
            widen_row<A>(&x(b, t, 0), x.strides[2], D, frame);
            for (index_t s = 0; s < e.shape[2]; ++s) {
                widen_row<A>(&mean(b, t, s, 0), mean.strides[3], D, centre);
                widen_row<A>(&deviation(b, t, s, 0), deviation.strides[3], D, spread);
                for (index_t d = 0; d < D; ++d)
                    spread[d] = spread[d] < static_cast<T>(least) ? static_cast<T>(least) : spread[d];
                V squares(0), logs(0);
                for (index_t d = 0; d < width; d += L) {
                    const V by = load<V>(spread + d), off = (load<V>(frame + d) - load<V>(centre + d)) / by;
                    squares = fma(off, off, squares);
                    logs += log(by);
                }
                e(b, t, s) = static_cast<E>(T(-0.5) * reduce_add(squares) - reduce_add(logs) - norm);
            }
        });
    };
    in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(workers(pool, tasks)) * bytes; }, run, policies...);
}

/// Generation by drawing: a state is left after this frame with the probability tau that the model gives, and a feature
/// of the frame is mean + max(deviation, least) times a normal number. The draws are those of the seed.
class sampled_walk {
public:
    explicit sampled_walk(std::uint64_t seed) : random_(seed) {}
    index_t state() const { return state_; }
    /// Whether this frame, with tau of the current state, is its last: the next is in the next state.
    bool step(double tau) {
        if (!(random_.uniform(draws_++) < tau)) return false;
        ++state_;
        return true;
    }
    double feature(double mean, double deviation, double least) {
        return mean + std::max(deviation, least) * random_.normal(draws_++);
    }

private:
    counter_random random_;
    std::uint64_t draws_ = 0;
    index_t state_ = 0;
};

}  // namespace heed::inline HEED_ABI
