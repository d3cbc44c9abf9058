// A program of someone else.
#include <cstdio>
#include <heed/heed.hpp>
#include <vector>

int main() {
    std::vector<float> x(4 * 8, 1.0f), y(x.size());
    const auto in = heed::heads(x.data(), {1, 1, 4, 8});
    heed::attention(in, in, in, heed::heads(y.data(), {1, 1, 4, 8}), heed::causal{});
    std::printf("heed %d.%d.%d says %g\n", HEED_VERSION_MAJOR, HEED_VERSION_MINOR, HEED_VERSION_PATCH, double(y[0]));
    return y[0] > 0.99f && y[0] < 1.01f ? 0 : 1;
}
