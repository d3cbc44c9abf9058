// Mean and covariance of keys, kept while keys arrive, and what they tell of a query's sum of exponentials [92].
//
//   sum over n keys of exp(s q.k)  ~  n exp(s q.mu + s^2 q^T Sigma q / 2)      exact in the mean for normal keys
// Welford's update: one pass, O(D^2) a key, no difference of large sums. State: B G (1 + D + D^2) numbers.
#pragma once

#include <cmath>
#include <vector>

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "../simd/pack.hpp"

namespace heed::inline HEED_ABI {

class key_moments {
public:
    key_moments(index_t sequences, index_t heads, index_t width)
        : shape_{sequences, heads, width},
          count_(size(sequences * heads)),
          mean_(size(sequences * heads * width)),
          scatter_(size(sequences * heads * width * width)) {
        for (index_t extent : shape_) require_argument(extent >= 0, "key_moments", "an extent is negative: ", extent);
    }

    /// k (B, G, n, D), as they are stored: rotated keys where the queries are rotated.
    template <class K>
    void append(const K& keys) {
        const auto k = as_view(keys);
        const extents<4> want{shape_[0], shape_[1], k.shape[2], shape_[2]};
        for (std::size_t a = 0; a < 4; ++a)
            require_shape(k.shape[a] == want[a], "key_moments", "k has extent ", k.shape[a], " on axis ", a,
                          ", the moments have ", want[a]);
        std::vector<double> off(size(shape_[2]));
        for (index_t b = 0; b < shape_[0]; ++b)
            for (index_t g = 0; g < shape_[1]; ++g)
                for (index_t j = 0; j < k.shape[2]; ++j) {
                    for (index_t d = 0; d < shape_[2]; ++d) off[size(d)] = static_cast<double>(k(b, g, j, d));
                    add(b * shape_[1] + g, off);
                }
    }

    const extents<3>& shape() const { return shape_; }  // B, G, D
    index_t count(index_t b, index_t g) const { return count_[size(b * shape_[1] + g)]; }
    double mean(index_t b, index_t g, index_t d) const { return mean_[size((b * shape_[1] + g) * shape_[2] + d)]; }
    /// The mean of (k - mean)(k - mean)^T; 0 of no keys.
    double covariance(index_t b, index_t g, index_t c, index_t d) const {
        const double n = static_cast<double>(std::max<index_t>(count(b, g), 1));
        return scatter_[size(((b * shape_[1] + g) * shape_[2] + c) * shape_[2] + d)] / n;
    }

    /// The log of the estimated sum of exp(scale q.k) over n keys; -inf for none. q(d) is the query's number d.
    template <class Query>
    double log_mass(index_t b, index_t g, const Query& q, double scale, index_t n) const {
        const index_t D = shape_[2], head = b * shape_[1] + g;
        std::vector<double> turned(size(D));  // Sigma q, times the number of keys
        for (index_t c = 0; c < D; ++c)
            add_times(turned.data(), static_cast<double>(q(c)), scatter_.data() + (head * D + c) * D, D);
        double linear = 0, square = 0;
        for (index_t c = 0; c < D; ++c) {
            square += static_cast<double>(q(c)) * turned[size(c)];
            linear += static_cast<double>(q(c)) * mean(b, g, c);
        }
        square /= static_cast<double>(std::max<index_t>(count(b, g), 1));
        return std::log(static_cast<double>(n)) + scale * linear + scale * scale * square / 2;
    }

private:
    static std::size_t size(index_t n) { return static_cast<std::size_t>(std::max<index_t>(n, 0)); }

    /// One key more: off is the key, then its distance from the mean before.
    void add(index_t head, std::vector<double>& off) {
        const index_t D = shape_[2];
        const auto n = static_cast<double>(++count_[size(head)]);
        for (index_t d = 0; d < D; ++d) {
            double& mean = mean_[size(head * D + d)];
            off[size(d)] -= mean;
            mean += off[size(d)] / n;
        }
        for (index_t c = 0; c < D; ++c) {
            const double by = off[size(c)] * (n - 1) / n;
            add_times(scatter_.data() + (head * D + c) * D, by, off.data(), D);
        }
    }
    /// y += by x, n numbers.
    static void add_times(double* y, double by, const double* x, index_t n) {
        using P = pack<double>;
        constexpr auto L = static_cast<index_t>(P::size);
        index_t i = 0;
        for (; i + L <= n; i += L) store(y + i, fma(P(by), load<P>(x + i), load<P>(y + i)));
        for (; i < n; ++i) y[i] = std::fma(by, x[i], y[i]);
    }

    extents<3> shape_;
    std::vector<index_t> count_;
    std::vector<double> mean_, scatter_;  // (b, g, d); sums of products of differences, (b, g, d, d)
};

}  // namespace heed::inline HEED_ABI
