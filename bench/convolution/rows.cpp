// What is measured of convolution: long filters from a thousand tokens to a million, short ones, both memory orders.
#include "../support/families.hpp"
#include "problem.hpp"

namespace bench {

std::vector<measurement> hyena_rows(length);

namespace {

void everyone(std::vector<measurement>& rows, const convolution_problem& p) {
    rows.push_back(measured(p, heed_convolver()));
    if (!p.by_token && p.K == p.N && fftw_convolver().prepare) rows.push_back(measured(p, fftw_convolver()));
    if (p.N * p.K <= index_t(1) << 20) rows.push_back(measured(p, naive_convolver()));
}

}  // namespace

std::vector<measurement> convolution_rows(length extent) {
    std::vector<measurement> rows;
    const bool whole = extent == length::whole;
    for (index_t N = 1024; N <= (whole ? 1048576 : 65536); N *= 4)
        for (int threads : {1, 2})
            for (bool by_token : {false, true}) {
                const index_t C = N > 262144 ? 16 : 64;
                everyone(rows, {N, N, C, threads, by_token});
                if (whole) rows.push_back(measured({N, N, C, threads, by_token}, heed_convolver("f64")));
            }
    for (index_t K : {4, 16, 64, 256, 1024})
        if (whole || K <= 64)
            for (bool by_token : {false, true}) everyone(rows, {16384, K, 64, 1, by_token});
    if (whole)
        for (index_t N : {1000, 1025, 1500, 3000, 10007, 100003}) everyone(rows, {N, N, 64, 1, false});
    for (measurement& m : hyena_rows(extent)) rows.push_back(std::move(m));
    return rows;
}

}  // namespace bench
