// The bars of decoding: each a ratio of what is measured in turn, reads of as many bytes as K and V among it.
#include "../attention/measured.hpp"
#include "../attention/patterns.hpp"
#include "../support/families.hpp"
#include "../support/lanes.hpp"
#include "decoder.hpp"

namespace bench {
namespace {

constexpr index_t usual = 32768;

std::string on_threads(int n) { return n == 1 ? ", 1 thread" : ", " + std::to_string(n) + " threads"; }

/// Reads alone are the bound.
void bandwidth(bars_table& table) {
    struct bar {
        const char* dtype;
        int threads;
        double least;
    };
    for (const bar& b : {bar{"f32", 1, 0.85}, bar{"f32", 2, 0.85}, bar{"bf16", 2, 0.80}, bar{"f16", 2, 0.80},
                         bar{"bf16", 1, 0.60}, bar{"f16", 1, 0.60}}) {
        const auto lanes = compare({measured("contiguous", b.dtype, {usual, b.threads})}, 2, 9, bound::memory);
        table.add(std::string("decode, of the read stream, ") + b.dtype + on_threads(b.threads), b.least,
                  lanes[0].of_bound(), wanted::at_least);
    }
}

void int8(bars_table& table) {
    const auto in = [](const char* cache, const char* dtype) { return measured(cache, dtype, {usual, 2}); };
    const auto lanes = compare({in("contiguous", "f32"), in("contiguous", "int8"), in("integer", "int8")}, 3, 11,
                               bound::memory);
    table.add("decode, int8 over f32" + on_threads(2), 2.2, time_ratio(lanes[0], lanes[1]), wanted::at_least);
    table.add("decode, int8 by products of integers over f32" + on_threads(2), 2.2, time_ratio(lanes[0], lanes[2]),
              wanted::at_least);
}

void pages(bars_table& table) {
    for (int threads : {1, 2}) {
        const auto of = [&](const char* cache) { return measured(cache, "f32", {usual, threads}); };
        const auto lanes = compare({of("contiguous"), of("paged16"), of("paged64")}, 3, 11, bound::memory);
        for (std::size_t x : {1, 2})
            table.add("decode, time of pages of " + std::string(x == 1 ? "16" : "64") + " over contiguous" +
                          on_threads(threads),
                      1.1, time_ratio(lanes[x], lanes[0]), wanted::at_most);
    }
}

/// Where a step looks, beside what it computes [78].
void masses(bars_table& table) {
    const auto of = [](const char* cache) { return measured(cache, "f32", {usual, 2}); };
    const auto lanes = compare({of("contiguous"), of("segment_mass")}, 3, 11, bound::memory);
    table.add("decode, time with masses of 32 segments over without" + on_threads(2), 1.05,
              time_ratio(lanes[1], lanes[0]), wanted::at_most);
}

/// What a token costs late in a stream, and what it costs without one.
void stream(bars_table& table) {
    {
        const auto seen = [](index_t tokens) { return stream_of(4096, 2044, {tokens, 1}); };
        const auto lanes = compare({seen(4096), seen(index_t(4) << 20)}, 3, 21, bound::memory);
        table.add("stream, time of a token at 4 million seen over 4096 seen", 1.05, time_ratio(lanes[1], lanes[0]),
                  wanted::at_most);
    }
    const index_t window = 4096;
    const problem recomputed{causal_mask, dtype::f32,     decode_step::D, window,
                             window,      decode_step::H, decode_step::G, 1};
    const auto lanes = compare({measured(recomputed), stream_of(2 * window, window - 4, {2 * window, 1})}, 0, 5);
    table.add("stream, recomputing the window of 4096 over a token", 22, time_ratio(lanes[0], lanes[1]),
              wanted::at_least);
}

/// An eighth of the keys, chosen, against all.
void retrieval(bars_table& table) {
    for (int threads : {1, 2}) {
        const auto of = [&](const char* cache) { return measured(cache, "f32", {131072, threads}); };
        const auto lanes = compare({of("contiguous"), of("quest"), of("sparf")}, 5, 9, bound::memory);
        for (std::size_t x : {1, 2})
            table.add(std::string("decode, all of 131072 keys over an eighth by ") + (x == 1 ? "Quest" : "SparF") +
                          on_threads(threads),
                      4, time_ratio(lanes[0], lanes[x]), wanted::at_least);
    }
}

}  // namespace

std::vector<bar_group> decode_bars() {
    return {{"bandwidth", bandwidth}, {"int8", int8},     {"pages", pages},
            {"masses", masses},       {"stream", stream}, {"retrieval", retrieval}};
}

}  // namespace bench
