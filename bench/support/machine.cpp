#include "machine.hpp"

#include <unistd.h>

#include <algorithm>
#include <heed/heed.hpp>
#include <numeric>
#include <vector>

#include "clock.hpp"

namespace bench {
namespace {

using namespace heed;

/// Tells the compiler that x is used.
template <class T>
void keep(const T& x) {
    asm volatile("" : : "r"(&x) : "memory");
}

// Twelve chains hide the latency of any core of today (two units of latency four or five); sixteen registers hold them.
constexpr int chains = 12;

/// So many rounds of `chains` independent multiply-adds; the compiler can neither merge nor drop them.
template <class T>
HEED_NOINLINE T multiply_adds(index_t rounds, T x) {
    using P = pack<T>;
    P acc[chains];
    for (int c = 0; c < chains; ++c) acc[c] = P(static_cast<T>(c));
    const P a(x), b(x);
    for (index_t r = 0; r < rounds; ++r) unroll<chains>([&](auto c) HEED_INLINE_LAMBDA { acc[c] = fma(acc[c], a, b); });
    P sum(T(0));
    for (int c = 0; c < chains; ++c) sum = sum + acc[c];
    alignas(64) T lanes[P::size];
    store_aligned(lanes, sum);
    return std::accumulate(lanes, lanes + P::size, T(0));
}

/// body(worker) -> work done, on all threads of the pool at once, for about `seconds`: work per second.
template <class Body>
double rate(threads& pool, double seconds, const Body& body) {
    std::vector<double> done(static_cast<std::size_t>(pool.width()));
    const auto time = [&, start = now(static_cast<int>(pool.width()))] {
        return now(static_cast<int>(pool.width())) - start;
    };
    pool.run(pool.width(), [&](index_t w) {
        do {
            done[static_cast<std::size_t>(w)] += body(w);
        } while (time() < seconds);
    });
    return std::accumulate(done.begin(), done.end(), 0.0) / time();
}

/// Median of the best five of so many windows.
template <class Window>
double typical_best(int windows, const Window& window) {
    std::vector<double> rates;
    for (int w = 0; w < windows; ++w) rates.push_back(window());
    std::sort(rates.rbegin(), rates.rend());
    return rates[static_cast<std::size_t>(std::min(windows, 5) / 2)];
}

}  // namespace

template <class T>
double fma_rate(int workers, double seconds_per_window, int windows) {
    threads pool(workers);
    volatile T x = T(0.5);
    return typical_best(windows, [&] {
        return rate(pool, seconds_per_window, [&](index_t) {
            constexpr index_t rounds = 20000;  // about 100 microseconds
            keep(multiply_adds<T>(rounds, x));
            return 2.0 * chains * static_cast<double>(pack<T>::size) * rounds;
        });
    });
}
template double fma_rate<float>(int, double, int);
template double fma_rate<double>(int, double, int);

namespace {

// Each thread reads a stretch of its own from end to end.
using P = pack<float>;
constexpr index_t loads = 8, step = loads * P::size;  // floats

}  // namespace

read_stream::read_stream(index_t bytes, int threads)
    : pool_(threads), stretch_(ceil_div(bytes, static_cast<index_t>(sizeof(float)) * threads * step) * step),
      memory_(static_cast<std::size_t>(2 * threads * stretch_) * sizeof(float)) {
    std::fill_n(reinterpret_cast<float*>(memory_.data()), 2 * threads * stretch_, 1.0f);
}

double read_stream::rate() {
    const index_t first = half_ * static_cast<index_t>(pool_.width()) * stretch_;
    half_ = 1 - half_;
    return bench::rate(pool_, 0.001, [&](index_t w) {  // a small buffer many times
        P sum[loads];
        for (P& s : sum) s = P(0.0f);
        const float* from = reinterpret_cast<const float*>(memory_.data()) + first + w * stretch_;
        for (index_t i = 0; i < stretch_; i += step)
            unroll<loads>([&](auto c) HEED_INLINE_LAMBDA { sum[c] = sum[c] + load<P>(from + i + c * P::size); });
        for (int c = 1; c < loads; ++c) sum[0] = sum[0] + sum[c];
        keep(sum[0]);
        return static_cast<double>(stretch_) * sizeof(float);
    });
}

const machine& this_machine() {
    static const machine measured = [] {
        machine m;
        const auto cache = static_cast<index_t>(::sysconf(_SC_LEVEL3_CACHE_SIZE));
        const index_t bytes = std::clamp<index_t>(2 * cache, index_t(32) << 20, index_t(256) << 20);  // of two buffers each
        for (int t = 1; t <= machine::most_threads; ++t) {
            m.f32[t] = fma_rate<float>(t, 0.01, 20);
            m.f64[t] = fma_rate<double>(t, 0.01, 20);
            read_stream stream(bytes, t);
            m.bandwidth[t] = typical_best(9, [&] { return stream.rate(); });
        }
        return m;
    }();
    return measured;
}

}  // namespace bench
