// Scaled rotations: angles for contexts longer than those a model was trained on [105], in place of theta{base}.
//
//   interpolated{s}                  f / s: every position squeezed by s (arXiv:2306.15595)
//   ntk_aware{s}                     f of the base times s^(w / (w - 2)): the first pair as before, the last at f / s
//   dynamic_ntk{s, trained, length}  ntk_aware by 1 + s (length / trained - 1), plain up to the trained length
//   yarn{s, trained}                 fast pairs as before, slow ones f / s, a ramp between (arXiv:2309.00071)
// f = base^(-2 pair / w), w channels turn. All keys and queries of a call need the same angles.
#pragma once

#include "rotation.hpp"

namespace heed::inline HEED_ABI {
namespace detail {
inline void check_stretch(const char* op, const char* name, double factor) {
    require_argument(factor >= 1, op, "the factor of ", name, " is ", factor, ", the least is 1");
}
inline void check_trained(const char* op, index_t trained) {
    require_argument(trained >= 1, op, "the trained length is ", trained, ", the least is 1");
}
}  // namespace detail

/// Position interpolation: frequencies by `factor` >= 1 lower.
struct interpolated {
    using role = roles::angles;
    double factor;
    theta plain;
    constexpr explicit interpolated(double by, double base = 10000) : factor(by), plain(base) {}
    double frequency(index_t pair, index_t width) const { return plain.frequency(pair, width) / factor; }
    void check(const char* op, index_t pairs) const {
        detail::check_stretch(op, "interpolated", factor);
        plain.check(op, pairs);
    }
};

/// NTK-aware scaling by `factor` >= 1: high frequencies keep their resolution, low ones are interpolated.
struct ntk_aware {
    using role = roles::angles;
    double factor;
    theta plain;
    constexpr explicit ntk_aware(double by, double base = 10000) : factor(by), plain(base) {}
    double frequency(index_t pair, index_t width) const {
        if (pair == 0) return 1;  // also where width is 2, and the exponent below has no value
        const auto w = static_cast<double>(width);
        return theta(plain.base * std::pow(factor, w / (w - 2))).frequency(pair, width);
    }
    void check(const char* op, index_t pairs) const {
        detail::check_stretch(op, "ntk_aware", factor);
        plain.check(op, pairs);
    }
};

/// NTK-aware scaling that grows with the sequence. Keys rotated at one length do not fit queries rotated at another:
/// caches hold them unrotated, or `length` is fixed beforehand.
struct dynamic_ntk {
    using role = roles::angles;
    double factor;
    index_t trained, length;
    theta plain;
    constexpr dynamic_ntk(double by, index_t trained_length, index_t length_now, double base = 10000)
        : factor(by), trained(trained_length), length(length_now), plain(base) {}
    double frequency(index_t pair, index_t width) const {
        const double longer = static_cast<double>(std::max(length, trained)) / static_cast<double>(trained);
        return ntk_aware(1 + factor * (longer - 1), plain.base).frequency(pair, width);
    }
    void check(const char* op, index_t pairs) const {
        detail::check_stretch(op, "dynamic_ntk", factor);
        detail::check_trained(op, trained);
        plain.check(op, pairs);
    }
};

/// YaRN: pairs that turn more than `fast` times over the trained length stay, those that turn less than `slow` times
/// are interpolated by `factor` >= 1. The ramp runs over the pair's number, as in the authors' code. Its other half is
/// attention(..., scale{logit_factor() / sqrt(D)}), which the authors put into cosines and sines, a root in each.
struct yarn {
    using role = roles::angles;
    double factor;
    index_t trained;
    theta plain;
    double fast, slow;
    constexpr yarn(double by, index_t trained_length, double base = 10000, double fast_turns = 32,
                   double slow_turns = 1)
        : factor(by), trained(trained_length), plain(base), fast(fast_turns), slow(slow_turns) {}

    double frequency(index_t pair, index_t width) const {
        const double f = plain.frequency(pair, width);
        const double first = std::max(std::floor(turning(fast, width)), 0.0);
        const double last = std::min(std::ceil(turning(slow, width)), static_cast<double>(width - 1));
        const double step = std::max(last - first, 0.001);  // the authors' guard
        const double ramp = std::clamp((static_cast<double>(pair) - first) / step, 0.0, 1.0);
        return f - ramp * (f - f / factor);
    }
    /// What multiplies q.k: the square of 0.1 ln(factor) + 1.
    double logit_factor() const { return std::pow(0.1 * std::log(factor) + 1, 2); }
    void check(const char* op, index_t) const {
        detail::check_stretch(op, "yarn", factor);
        detail::check_trained(op, trained);
        require_argument(plain.base > 1, op, "theta is ", plain.base, ", yarn needs one above 1");
        require_argument(slow > 0 && fast >= slow, op, "yarn keeps pairs of ", fast,
                         " turns and interpolates those of ", slow, "; both are above 0, the first no less");
    }

private:
    /// The number, not whole, of the pair that turns this often over the trained length.
    double turning(double turns, index_t width) const {
        constexpr double circle = 6.283185307179586;
        const double per_turn = static_cast<double>(trained) / (turns * circle);
        return static_cast<double>(width) * std::log(per_turn) / (2 * std::log(plain.base));
    }
};

}  // namespace heed::inline HEED_ABI
