// What a user's first file costs to compile.
#include <heed/heed.hpp>
#include <vector>

int main() {
    std::vector<float> x(2 * 8 * 16, 1.0f), y(x.size());
    const auto in = heed::heads(x.data(), {1, 2, 8, 16});
    heed::attention(in, in, in, heed::heads(y.data(), {1, 2, 8, 16}));
    return y[0] > 0.99f && y[0] < 1.01f ? 0 : 1;
}
