// Weights of models that were never trained.
#pragma once

#include <Eigen/Dense>
#include <cstdint>
#include <heed/core/random.hpp>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Normal numbers of a standard deviation.
inline matrix drawn(heed::index_t rows, heed::index_t columns, std::uint64_t seed, double spread) {
    const heed::counter_random random(seed);
    matrix m(rows, columns);
    for (heed::index_t i = 0; i < m.size(); ++i)
        m.data()[i] = static_cast<float>(spread * random.normal(static_cast<std::uint64_t>(i)));
    return m;
}
