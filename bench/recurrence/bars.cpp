// The bars of recurrences: shares of the machine's peak by the flops of the definition, and what does not grow with length.
#include "../attention/measured.hpp"
#include "../attention/patterns.hpp"
#include "../support/families.hpp"
#include "../support/lanes.hpp"
#include "contestants.hpp"

namespace bench {
namespace {

void peak(bars_table& table) {
    struct bar {
        const char* op;
        double least;
    };
    for (const bar& b : {bar{"additive", 0.60}, bar{"retention", 0.60}, bar{"simple_gla", 0.60}, bar{"gla", 0.45},
                         bar{"deltanet", 0.45}, bar{"gated_deltanet", 0.45}})
        for (index_t D : {64, 128}) {
            const auto lanes = compare({measured(recurrence_task{b.op, D, D, 2048, 8, 1})}, 2, 9);
            table.add(std::string(b.op) + " of the FMA peak, D = E = " + std::to_string(D) + ", H 8, T 2048", b.least,
                      lanes[0].of_bound(), wanted::at_least);
        }
    const auto lanes = compare({measured(recurrence_task{"mamba2", 128, 64, 1024, 32, 1})}, 2, 9);
    table.add("mamba2 of the FMA peak, state 128, P 64, H 32, T 1024", 0.50, lanes[0].of_bound(), wanted::at_least);
}

/// Time of a token of one head late in a sequence over one early. A million tokens of many heads would not fit into memory,
/// so there is one head of them; the short sequences have 32, whose operands no cache holds.
void length_free(bars_table& table) {
    for (const char* op : {"additive", "retention", "simple_gla", "gla", "deltanet", "gated_deltanet", "kda",
                           "rwkv6", "rwkv7", "mamba2"}) {
        const index_t D = op == std::string("mamba2") ? 128 : 64, brief = 4096, long_one = 1 << 20, heads = 32;
        const auto a = compare({measured(recurrence_task{op, D, 64, brief, heads, 1})}, 1, 9);
        const auto b = compare({measured(recurrence_task{op, D, 64, long_one, 1, 1})}, 1, 3);
        table.add(std::string(op) + ", time of a token at T = 1048576 over T = 4096", 1.05,
                  time_ratio(b[0], a[0]) * static_cast<double>(brief * heads) / static_cast<double>(long_one), wanted::at_most);
    }
}

void step(bars_table& table) {
    for (const char* op : {"additive", "simple_gla", "gla", "gated_deltanet", "rwkv7"}) {
        const auto lanes = compare({step_measured({op, 128, 128, 1, 32, 1})}, 1, 15, bound::memory);
        table.add(std::string(op) + ", a step over reading its states once, D = E = 128, H 32", 1.5,
                  1 / lanes[0].of_bound(), wanted::at_most);
    }
}

void threads_of_one_sequence(bars_table& table) {
    for (const char* op : {"additive", "simple_gla", "gated_deltanet"}) {
        const auto on = [&](int threads) { return measured(recurrence_task{op, 64, 64, 65536, 1, threads}); };
        const auto lanes = compare({on(1), on(2)}, 3, 9);
        table.add(std::string(op) + ", two threads over one, one sequence of 65536, H 1, D 64", 1.8,
                  time_ratio(lanes[0], lanes[1]), wanted::at_least);
    }
}

/// The length from which linear attention is faster than softmax attention.
void crossover(bars_table& table) {
    double at = std::numeric_limits<double>::quiet_NaN();
    for (index_t N : {512, 256, 128, 64}) {
        const problem softmax{causal_mask, dtype::f32, 64, N, N, 8, 8, 1};
        const auto lanes = compare({measured(softmax), measured(recurrence_task{"additive", 64, 64, N, 8, 1})}, 0.5, 9);
        if (!(time_ratio(lanes[0], lanes[1]) > 1)) break;
        at = static_cast<double>(N);
    }
    table.add("linear attention is faster than causal softmax attention from N on, D 64", 512, at, wanted::at_most);
}

}  // namespace

std::vector<bar_group> recurrence_bars() {
    return {{"peak", peak},
            {"length", length_free},
            {"step", step},
            {"threads", threads_of_one_sequence},
            {"crossover", crossover}};
}

}  // namespace bench
