// A convolution to be timed: random sequences, filters that decay over the length, and what is exact at some places.
#pragma once

#include <heed/heed.hpp>

#include "../support/measurement.hpp"

namespace bench {

using namespace heed;

struct convolution_problem {
    index_t N = 0, K = 0, C = 64;
    int threads = 1;
    bool by_token = false;  // memory order n c; else c n

    /// convolution/<long or short>[_tokens]/<dtype>/n:N/k:K/c:C/threads:T
    std::string name(const std::string& dtype = "f32") const;
};

/// x (1, n, c) and filters (c, k) in S, and the definition at places spread over the outputs.
template <class S>
class convolution_operands {
    aligned_vector<S> memory_;

public:
    view<S, 3> x;
    view<S, 2> h;

    explicit convolution_operands(const convolution_problem& p);
    /// Largest difference from the definition at those places, over |h| |x| of their channel. NaN if one is.
    double error(const view<const S, 3>& y) const;

private:
    struct place {
        index_t t, c;
        double exact, norm;
    };
    std::vector<place> places_;
};

/// Those of a problem; rivals share them.
template <class S>
std::shared_ptr<const convolution_operands<S>> operands_of(const convolution_problem& p) {
    convolution_problem alone = p;
    alone.threads = 1;
    return at_hand(alone.name(sizeof(S) == 4 ? "f32" : "f64"), [&] { return convolution_operands<S>(p); });
}

/// Where y is written, NaN at first, in the order of x.
template <class S>
class convolution_output {
    aligned_vector<S> memory_;

public:
    view<S, 3> y;

    explicit convolution_output(const convolution_problem& p);
    std::span<const std::byte> bytes() const { return std::as_bytes(std::span(memory_)); }
};

/// Runs a convolution once and judges its output, which lives as long as the job.
template <class S>
prepared judged(const convolution_problem& p, const convolution_operands<S>& x, const convolution_output<S>& to,
                job run);

struct convolver {
    std::string dtype, by;
    std::function<prepared(const convolution_problem&)> prepare;
};
measurement measured(const convolution_problem& p, const convolver& by);

convolver heed_convolver(const std::string&dtype = "f32"), naive_convolver();
/// FFTW, planned with FFTW_MEASURE: real transforms of 2 N, spectra of filters kept. Empty name where it is not here.
convolver fftw_convolver();

}  // namespace bench
