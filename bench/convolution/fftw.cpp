// FFTW: real transforms of 2 N, channel by channel.
#ifdef HEED_BENCH_FFTW

#include <fftw3.h>

#include <cstring>

#include "../support/crew.hpp"
#include "problem.hpp"

namespace bench {
namespace {

/// Both transforms of 2 N numbers in aligned memory, and how much of that they need.
class transforms {
public:
    explicit transforms(index_t N)
        : N_(N), memory_(static_cast<std::size_t>(size()) * sizeof(float)), plans_(planned()) {}
    ~transforms() {
        fftwf_destroy_plan(plans_.there);
        fftwf_destroy_plan(plans_.back);
    }
    transforms(const transforms&) = delete;

    index_t reals() const { return round_up(2 * N_, 16); }
    index_t size() const { return reals() + round_up(2 * (N_ + 1), 16); }
    void there(float* x, fftwf_complex* z) const { fftwf_execute_dft_r2c(plans_.there, x, z); }
    void back(fftwf_complex* z, float* x) const { fftwf_execute_dft_c2r(plans_.back, z, x); }

private:
    struct both {
        fftwf_plan there, back;
    };
    both planned() const {
        auto* x = reinterpret_cast<float*>(memory_.data());
        auto* z = reinterpret_cast<fftwf_complex*>(x + reals());
        const int n = static_cast<int>(2 * N_);
        return {fftwf_plan_dft_r2c_1d(n, x, z, FFTW_MEASURE), fftwf_plan_dft_c2r_1d(n, z, x, FFTW_MEASURE)};
    }

    index_t N_;
    arena memory_;
    both plans_;
};

prepared prepare(const convolution_problem& p) {
    const auto x = operands_of<float>(p);
    const auto to = std::make_shared<convolution_output<float>>(p);
    const auto fft = std::make_shared<transforms>(p.N);
    const index_t N = p.N, each = round_up(2 * (N + 1), 16), reals = fft->reals();
    const auto spectra = std::make_shared<arena>(static_cast<std::size_t>(p.C * each) * sizeof(float));
    const auto spectrum = [=](index_t c) {
        return reinterpret_cast<fftwf_complex*>(reinterpret_cast<float*>(spectra->data()) + c * each);
    };
    const arena padded(static_cast<std::size_t>(reals) * sizeof(float));
    for (index_t c = 0; c < p.C; ++c) {
        auto* row = reinterpret_cast<float*>(padded.data());
        std::fill_n(row, 2 * N, 0.0f);
        for (index_t k = 0; k < p.K; ++k) row[k] = x->h(c, k) / static_cast<float>(2 * N);
        fft->there(row, spectrum(c));
    }
    const job run = over_tasks<float>(p.threads, p.C, fft->size(), [=](index_t c, float* row) {
        auto* z = reinterpret_cast<fftwf_complex*>(row + reals);
        std::memcpy(row, &x->x(0, 0, c), static_cast<std::size_t>(N) * sizeof(float));
        std::memset(row + N, 0, static_cast<std::size_t>(N) * sizeof(float));
        fft->there(row, z);
        const fftwf_complex* h = spectrum(c);
        for (index_t i = 0; i <= N; ++i) {
            const float re = z[i][0] * h[i][0] - z[i][1] * h[i][1];
            z[i][1] = z[i][0] * h[i][1] + z[i][1] * h[i][0];
            z[i][0] = re;
        }
        fft->back(z, row);
        std::memcpy(&to->y(0, 0, c), row, static_cast<std::size_t>(N) * sizeof(float));
    });
    return judged(p, *x, *to, run);
}

}  // namespace

convolver fftw_convolver() { return {"f32", "fftw", prepare}; }

}  // namespace bench

#else

#include "problem.hpp"

namespace bench {
convolver fftw_convolver() { return {}; }
}  // namespace bench

#endif
