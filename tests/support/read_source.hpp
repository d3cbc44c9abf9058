// One sequence of a key/value source, read back run by run into dense tensors.
#pragma once

#include <gtest/gtest.h>

#include <heed/policy/source.hpp>

#include "tensor.hpp"

namespace test {

struct read_back {
    tensor<double> k, v;    // (1, G, M, D), (1, G, M, E)
    index_t most_runs = 0;  // of a head
};

/// Sequence b, whose heads all hold the same number of keys. Fails unless the runs cover the keys in order, and a run
/// asked for from its middle is the rest of it.
template <key_value_source S>
read_back read_source(const S& source, index_t b = 0) {
    const index_t G = source.heads(), D = source.key_width(), E = source.value_width();
    const index_t M = G > 0 ? source.keys(b, 0) : 0;
    read_back out{tensor<double>({1, G, M, D}), tensor<double>({1, G, M, E}), 0};
    for (index_t g = 0; g < G; ++g) {
        EXPECT_EQ(source.keys(b, g), M);
        index_t runs = 0;
        for (index_t j = 0; j < M; ++runs) {
            const auto run = source.run(b, g, j);
            if (run.keys.first != j || run.keys.last <= j || run.keys.last > M) {
                ADD_FAILURE() << "key " << j << " is in the run [" << run.keys.first << ", " << run.keys.last << ") of "
                              << M;
                return out;
            }
            const index_t middle = j + run.keys.size() / 2;
            for (; j < run.keys.last; ++j) {
                for (index_t d = 0; d < D; ++d) out.k(0, g, j, d) = run.k.number(j - run.keys.first, d);
                for (index_t e = 0; e < E; ++e) out.v(0, g, j, e) = run.v.number(j - run.keys.first, e);
            }
            const auto rest = source.run(b, g, middle);
            EXPECT_EQ(rest.keys, (range{middle, run.keys.last}));
            for (index_t d = 0; d < D; ++d) EXPECT_EQ(rest.k.number(0, d), out.k(0, g, middle, d));
            for (index_t e = 0; e < E; ++e) EXPECT_EQ(rest.v.number(0, e), out.v(0, g, middle, e));
        }
        out.most_runs = std::max(out.most_runs, runs);
    }
    return out;
}

}  // namespace test
