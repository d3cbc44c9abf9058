// The same call from three translation units: the first two have the same bits, the wide one the same values.
#include "odr.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>

int main() {
    float x[rows * width], one[rows * width], two[rows * width], wide[rows * width];
    for (int i = 0; i < rows * width; ++i) x[i] = std::sin(static_cast<float>(i));
    attend_one(x, one);
    attend_two(x, two);
    if (std::memcmp(one, two, sizeof one) != 0) return 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        std::puts("skipped: this machine has no AVX2");
        return 0;
    }
#endif
    attend_wide(x, wide);
    for (int i = 0; i < rows * width; ++i)
        if (!(std::abs(one[i] - wide[i]) <= 1e-5f)) return 2;
    return 0;
}
