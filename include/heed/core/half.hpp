// The storage types: float, double, bf16 and f16, and the type each is accumulated in.
#pragma once

#include <Eigen/Core>
#include <concepts>
#include <type_traits>

#include "config.hpp"

namespace heed::inline HEED_ABI {

using bf16 = Eigen::bfloat16;
using f16 = Eigen::half;

template <class T>
concept storage = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bf16> || std::same_as<T, f16>;

/// double if any of the types is double, else float.
template <class... Ts>
using accumulator = std::conditional_t<(std::same_as<std::remove_cv_t<Ts>, double> || ...), double, float>;

}  // namespace heed::inline HEED_ABI
