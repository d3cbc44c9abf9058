// The bars of attention.
#include <algorithm>
#include <cmath>

#include "../support/families.hpp"
#include "../support/lanes.hpp"
#include "contestants/heed.hpp"
#include "measured.hpp"
#include "patterns.hpp"

namespace bench {
namespace {

problem square(const pattern& what, index_t D, index_t N, index_t H, dtype type = dtype::f32, int threads = 1) {
    return {what, type, D, N, N, H, H, threads};
}

void peaks(bars_table& table) {
    struct bar {
        const pattern& what;
        index_t D, N;
        double least, aim;
    };
    const bar bars[] = {
        {full, 128, 2048, 0.88, 0.93},       {full, 128, 8192, 0.88, 0.93},        {full, 64, 2048, 0.84, 0.90},
        {full, 64, 8192, 0.84, 0.90},        {causal_mask, 128, 2048, 0.84, 0.90}, {causal_mask, 128, 8192, 0.84, 0.90},
        {causal_mask, 64, 2048, 0.80, 0.87}, {causal_mask, 64, 8192, 0.80, 0.87},  {full, 64, 256, 0.72, 0.80},
    };
    for (const bar& b : bars) {
        const auto lanes = compare({measured(square(b.what, b.D, b.N, 8))}, 2, 7);
        table.add("of_peak, f32, " + b.what.name + ", D " + std::to_string(b.D) + ", N " + std::to_string(b.N), b.least,
                  b.aim, lanes[0].of_bound(), wanted::at_least);
    }
}

void against_openblas(bars_table& table) {
    const contestant* openblas = find_contestant("openblas");
    if (!openblas) {
        std::printf("no OpenBLAS in this build\n");
        return;
    }
    double least = std::numeric_limits<double>::infinity();
    std::string where_least;
    for (const pattern& what : {full, causal_mask})
        for (index_t D : {64, 128})
            for (index_t N = 64; N <= 16384; N *= 2) {
                const problem p = square(what, D, N, N > 8192 ? 1 : N > 2048 ? 2 : 8);
                if (!openblas->able(p)) continue;
                const auto lanes = compare({measured(p), measured(p, *openblas)}, 0.3, 5);
                const double ratio = time_ratio(lanes[1], lanes[0]);
                std::printf("%50s %.2fx\n", "heed over openblas", ratio);
                if (std::isnan(ratio) || ratio < least) least = ratio, where_least = p.name();
            }
    table.add("heed over OpenBLAS, the least of all points", 1.0, 1.3, least, wanted::at_least, where_least);
}

void types(bars_table& table) {
    const auto in = [](dtype type) { return measured(square(full, 128, 2048, 8, type)); };
    const auto lanes = compare({in(dtype::bf16), in(dtype::f32)}, 3, 9);
    table.add("bf16 over f32, D 128, N 2048", 1.5, 1.8, time_ratio(lanes[1], lanes[0]), wanted::at_least);
}

/// time(mask) / time(full) over area / N^2: 1 where skipping costs nothing.
void masks(bars_table& table) {
    std::vector<pattern> all = published_masks();
    all.insert(all.begin(), full);
    std::vector<measurement> rows;
    for (const pattern& what : all) rows.push_back(measured(square(what, 64, 8192, 2)));
    const auto lanes = compare(rows, 0, 7);
    const auto area = [&](std::size_t x) { return lanes[x].what().column("area"); };
    const auto worst = [&](bool short_documents) {
        double most = 0;
        std::string name;
        for (std::size_t x = 1; x < lanes.size(); ++x) {
            const pattern& what = all[x];
            if ((has_documents(what) && what.parameter < 1024) != short_documents) continue;
            const double cost = time_ratio(lanes[x], lanes[0]) / (area(x) / area(0));
            std::printf("%50s %.3f  %s\n", "time over area", cost, what.name.c_str());
            if (std::isnan(cost) || cost > most) most = cost, name = what.name;
        }
        return std::pair(most, name);
    };
    const auto usual = worst(false), with_short = worst(true);
    table.add("time over area, the worst of the masks, N 8192, documents of 1024", 1.25, 1.1, usual.first,
              wanted::at_most, usual.second);
    table.add("the same, documents of 160", 2.0, 2.0, with_short.first, wanted::at_most, with_short.second);
}

void threads_and_bits(bars_table& table) {
    for (index_t D : {128, 64}) {
        const auto on_threads = [&](int n) { return measured(square(full, D, 2048, 8, dtype::f32, n)); };
        const auto lanes = compare({on_threads(1), on_threads(2)}, 3, 9);
        const bool same = std::ranges::equal(lanes[0].what().output, lanes[1].what().output);
        table.add("two threads over one, N 2048, D " + std::to_string(D), 1.9, 1.9,
                  same ? time_ratio(lanes[0], lanes[1]) : 0, wanted::at_least, same ? "same bits" : "bits differ");
    }
}

void memory(bars_table& table) {
    for (index_t D : {64, 128}) {
        const problem p = square(full, D, 16384, 8);
        operands x(p);
        table.add("scratch in MiB, N = M = 16384, 8 heads, D " + std::to_string(D), 4, 1,
                  static_cast<double>(heed_scratch(p, x)) / (1 << 20), wanted::at_most);
    }
}

}  // namespace

std::vector<bar_group> attention_bars() {
    return {{"memory", memory}, {"peaks", peaks},
            {"types", types},   {"threads", threads_and_bits},
            {"masks", masks},   {"openblas", against_openblas}};
}

}  // namespace bench
