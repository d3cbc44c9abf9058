// What the replays of heed_conformance share: which implementation runs, and the comparison with the golden output.
#pragma once

#include <cmath>

#include "../support/golden.hpp"

namespace conformance {

using namespace heed;
using test::array;
using test::golden_case;

enum class engine { heed, reference };

/// Runs the case and throws std::exception with the reason if it does not hold; returns the worst error as a part of
/// what is tolerated.
double replay_attention(golden_case& c, engine by);
double replay_rotary(golden_case& c, engine by);
double replay_selective_scan(golden_case& c, engine by);
double replay_hgrn(golden_case& c, engine by);
double replay_causal_conv(golden_case& c, engine by);
double replay_linear_attention(golden_case& c, engine by);
double replay_recurrence(golden_case& c, engine by);
double replay_features(golden_case& c, engine by);
double replay_slots(golden_case& c, engine by);
double replay_mamba2(golden_case& c, engine by);
double replay_log_linear(golden_case& c, engine by);
double replay_mesa_net(golden_case& c, engine by);

/// Error tolerated relative to max(1, |x|), by the type of an output.
inline double tolerance_of(const std::string& type) {
    if (type == "float64") return 1e-12;
    if (type == "float32") return 2e-5;
    if (type == "float16") return 2e-3;
    if (type == "bfloat16") return 1.6e-2;  // two units in the last place, as for float16
    return 0;
}

/// Worst error over tolerance; throws if it is above 1 or the shapes differ. NaN equals NaN only.
template <class T>
double compare(const std::string& name, const std::vector<index_t>& shape, const std::vector<T>& got, const array& want,
               double tolerance) {
    const auto fail = [&](const std::string& why) { throw std::runtime_error(name + ": " + why); };
    if (shape != want.shape) fail("the shape differs from the golden one");
    const auto expected = want.as<double>();
    double worst = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double x = static_cast<double>(got[i]), y = expected[i];
        if (x == y || (std::isnan(x) && std::isnan(y))) continue;
        const double error = std::abs(x - y) / std::max(1.0, std::abs(y));
        if (!(error <= tolerance))
            fail("element " + std::to_string(i) + " is " + std::to_string(x) + ", golden " + std::to_string(y) +
                 ", error " + std::to_string(error));
        if (tolerance > 0) worst = std::max(worst, error / tolerance);
    }
    return worst;
}

/// Calls f(T{}) with the storage type of that name.
template <class F>
auto with_type(const std::string& type, F&& f) {
    if (type == "float32") return f(float{});
    if (type == "float64") return f(double{});
    if (type == "float16") return f(f16{});
    if (type == "bfloat16") return f(bf16{});
    throw std::runtime_error("no storage type " + type);
}

}  // namespace conformance
