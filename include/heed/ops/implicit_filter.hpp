// Filters that a small network of positions makes: those of Hyena [55] and HyenaDNA [6].
//
//   t_l = l / (Lmax - 1), w_l = 2 pi l / Lmax, f = linspace(1e-4, nb - 1, nb), nb = (E - 1) / 2
//   z_l = [t_l, cos(f w_l), -sin(f w_l)];  a = sin(freq (W z + b)), again through each inner layer;  h = W' a
//   k[c, l] = h[c] (exp(-t_l |decay_c|) + shift)
// The grid is that of Lmax whatever the length: a shorter filter is a prefix of a longer one. Cost O(W (W + C)) a tap.
#pragma once

#include <Eigen/Core>
#include <numbers>
#include <vector>

#include "../core/half.hpp"
#include "../core/view.hpp"

namespace heed::inline HEED_ABI {

/// linspace(log(target) / slow, log(target) / fast, C), the decays of the published models.
inline std::vector<double> hyena_decays(index_t C, double slow = 1.5, double fast = 0.3, double target = 0.01) {
    std::vector<double> decays(static_cast<std::size_t>(C));
    const double first = std::log(target) / slow, last = std::log(target) / fast;
    for (index_t c = 0; c < C; ++c)
        decays[c] = C == 1 ? first : first + (last - first) * static_cast<double>(c) / static_cast<double>(C - 1);
    return decays;
}

template <std::floating_point T>
class implicit_filter {
public:
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using column = Eigen::Matrix<T, Eigen::Dynamic, 1>;

    struct sine_layer {
        matrix weight;  // (W, E) in the first, (W, W) in the others
        column bias;    // (W)
    };

    /// last (C, W), frequency (W), decay (C). Throws shape_error where they do not fit each other.
    implicit_filter(std::vector<sine_layer> layers, matrix last, column frequency, column decay, T shift,
                    index_t longest)
        : layers_(std::move(layers)),
          last_(std::move(last)),
          frequency_(std::move(frequency)),
          decay_(std::move(decay)),
          shift_(shift),
          longest_(longest) {
        constexpr const char* op = "implicit_filter";
        require_argument(longest >= 2, op, "the grid has ", longest, " positions, the least is 2");
        require_shape(!layers_.empty(), op, "there is no sine layer");
        const index_t E = layers_[0].weight.cols(), W = frequency_.size();
        require_shape(E >= 3 && E % 2 == 1, op, "a position has ", E, " features, they are odd and at least 3");
        for (const sine_layer& layer : layers_) {
            const index_t in = &layer == &layers_[0] ? E : W;
            require_shape(layer.weight.rows() == W && layer.weight.cols() == in && layer.bias.size() == W, op,
                          "a layer is (", layer.weight.rows(), ", ", layer.weight.cols(), ") with ", layer.bias.size(),
                          " biases, asked for (", W, ", ", in, ")");
        }
        require_shape(last_.cols() == W && last_.rows() == decay_.size(), op, "the last layer is (", last_.rows(), ", ",
                      last_.cols(), "), asked for (", decay_.size(), ", ", W, ")");
    }

    index_t channels() const { return last_.rows(); }
    index_t longest() const { return longest_; }

    /// What all channels share, (W, taps), of taps 0 to N - 1 <= Lmax - 1.
    matrix hidden(index_t N) const {
        require_argument(N >= 0 && N <= longest_, "implicit_filter", "asked for ", N, " taps of ", longest_);
        matrix all(frequency_.size(), N);
        constexpr index_t block = 1024;
        for (index_t l = 0; l < N; l += block) {
            const index_t n = std::min(block, N - l);
            matrix a = features(l, n);
            for (const sine_layer& layer : layers_) {
                matrix next = (layer.weight * a).colwise() + layer.bias;
                a = (next.array().colwise() * frequency_.array()).sin();
            }
            all.middleCols(l, n) = a;
        }
        return all;
    }
    /// k[c, l] into row r of k for the channel first + r step; all the taps of hidden.
    void taps(const matrix& hidden, index_t first, index_t step, const view<T, 2>& k) const {
        const index_t N = hidden.cols(), C = k.shape[0];
        require_shape(k.shape[1] == N && k.strides[1] == 1 && (N == 0 || k.strides[0] >= N), "implicit_filter",
                      "k has rows of ", k.shape[1], ", there are ", N, " taps");
        if (N == 0 || C == 0) return;
        Eigen::Map<matrix, 0, Eigen::OuterStride<>> out(k.data, C, N, Eigen::OuterStride<>(k.strides[0]));
        matrix last(C, last_.cols());
        for (index_t r = 0; r < C; ++r) last.row(r) = last_.row(first + r * step);
        out.noalias() = last * hidden;
        for (index_t r = 0; r < C; ++r) {
            const T slope = -std::abs(decay_[first + r * step]) / static_cast<T>(longest_ - 1);
            const auto l = Eigen::Array<T, Eigen::Dynamic, 1>::LinSpaced(N, T(0), static_cast<T>(N - 1));
            out.row(r).array() *= ((l * slope).exp() + shift_).transpose();
        }
    }

private:
    /// z of positions first, ..., first + n - 1; (E, n). Angles in double: they reach pi E.
    matrix features(index_t first, index_t n) const {
        const index_t E = layers_[0].weight.cols(), bands = (E - 1) / 2;
        matrix z(E, n);
        for (index_t i = 0; i < n; ++i) {
            const auto l = static_cast<double>(first + i);
            z(0, i) = static_cast<T>(l / static_cast<double>(longest_ - 1));
            for (index_t j = 0; j < bands; ++j) {
                const double f = bands == 1 ? 1e-4
                                            : 1e-4 + (static_cast<double>(bands - 1) - 1e-4) * static_cast<double>(j) /
                                                         static_cast<double>(bands - 1);
                const double angle = f * 2 * std::numbers::pi * l / static_cast<double>(longest_);
                z(1 + j, i) = static_cast<T>(std::cos(angle));
                z(1 + bands + j, i) = static_cast<T>(-std::sin(angle));
            }
        }
        return z;
    }

    std::vector<sine_layer> layers_;
    matrix last_;
    column frequency_, decay_;
    T shift_;
    index_t longest_;
};

}  // namespace heed::inline HEED_ABI
