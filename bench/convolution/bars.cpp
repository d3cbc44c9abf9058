// The bars of convolution: ratios of what is measured in turn.
#include "../support/families.hpp"
#include "../support/lanes.hpp"
#include "problem.hpp"

namespace bench {

void hyena_over_attention(bars_table&), distilled_over_attention(bars_table&), million(bars_table&);

namespace {

void fftw(bars_table& table) {
    const convolver rival = fftw_convolver();
    if (!rival.prepare) return;
    for (index_t N : {1024, 4096, 16384, 65536, 262144}) {
        const convolution_problem p{N, N};
        const auto lanes = compare({measured(p, heed_convolver()), measured(p, rival)}, 2, 7);
        table.add("convolution, FFTW over heed, f32, N " + std::to_string(N), 1.5, time_ratio(lanes[1], lanes[0]),
                  wanted::at_least);
    }
}

void two_threads(bars_table& table) {
    constexpr index_t N = 16384;  // milliseconds, and spectra that the last cache holds
    const auto on = [&](int threads) { return measured(convolution_problem{N, N, 64, threads}, heed_convolver()); };
    const auto lanes = compare({on(1), on(2)}, 2, 11);
    table.add("convolution, two threads over one, N " + std::to_string(N), 1.8, time_ratio(lanes[0], lanes[1]),
              wanted::at_least);
}

}  // namespace

std::vector<bar_group> convolution_bars() {
    return {{"fftw", fftw},
            {"threads", two_threads},
            {"hyena", hyena_over_attention},
            {"distilled", distilled_over_attention},
            {"million", million}};
}

}  // namespace bench
