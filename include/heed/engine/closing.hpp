// How a row's sums become what multiplies its output: the sink joins, the inverse is taken, log-sum-exp is reported.
#pragma once

#include <cmath>
#include <limits>

#include "../policy/weight.hpp"
#include "../simd/math.hpp"

namespace heed::inline HEED_ABI::detail {

/// Reference m of the exponents (base 2) and sum l of the weights of one row, with the sink in it, and
///   output    what the unnormalised output is multiplied by; 0 for a row that saw no key
///   weight    what 2^(logit - m) is multiplied by to be a probability
///   log_sum   natural; -inf where there was nothing to sum
template <class T>
struct closed_row {
    T m, l, output = 1, weight = 1;
    double log_sum = 0;

    template <class Weight>
    closed_row(const Weight& by, index_t h, T reference, T sum, bool seen) : m(reference), l(sum) {
        if constexpr (Weight::normalised) {
            T moved = 1;
            if constexpr (requires { by.logits; }) moved = join(static_cast<double>(by.logits[static_cast<std::size_t>(h)]));
            weight = seen ? T(1) / l : T(0);
            output = seen ? moved / l : T(0);
            log_sum = l == T(0) && !seen ? -std::numeric_limits<double>::infinity()
                                         : (double(m) + std::log2(double(l))) * ln_2<double>;
        }
    }

private:
    /// One more logit in the sum; returns what everything summed before is multiplied by.
    T join(double natural_logit) {
        const T logit = static_cast<T>(natural_logit * log2_e<double>);
        if (!(logit > m)) {
            l += std::exp2(logit - m);
            return 1;
        }
        const T alpha = std::exp2(m - logit);  // the reference moves, so that the sink's own power cannot overflow
        l = l * alpha + T(1);
        m = logit;
        return alpha;
    }
};

}  // namespace heed::inline HEED_ABI::detail
