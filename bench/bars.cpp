#include "bars.hpp"

#include <algorithm>
#include <cstdio>

#include "contestants/heed.hpp"
#include "support/clock.hpp"
#include "support/machine.hpp"
#include "support/patterns.hpp"
#include "support/reporter.hpp"
#include "support/workbench.hpp"

namespace bench {
namespace {

double median(std::vector<double> x) {
    if (x.empty()) return 0;
    std::sort(x.begin(), x.end());
    const std::size_t half = x.size() / 2;
    return x.size() % 2 ? x[half] : (x[half - 1] + x[half]) / 2;
}

/// One row and its times, round by round, each with the peak measured around it.
struct lane {
    suite_row row;
    std::unique_ptr<operands> data;
    checked_job job;
    index_t calls = 1;  // of one round: enough for the clock
    std::vector<double> seconds, peak;

    explicit lane(suite_row r)
        : row(std::move(r)), data(std::make_unique<operands>(row.what)), job(check_in(row, *data)) {}

    double flops() const { return row.what.flops(job.area); }
    double of_peak() const {
        std::vector<double> all;
        for (std::size_t r = 0; r < seconds.size(); ++r) all.push_back(flops() / seconds[r] / peak[r]);
        return median(all);
    }
};

constexpr int wall = 2;  // the clock that any number of threads can be timed by

double time_of(lane& x, int clock) {
    const double start = now(clock);
    for (index_t c = 0; c < x.calls; ++c) x.job.run();
    return (now(clock) - start) / static_cast<double>(x.calls);
}

/// Times all lanes in turn, so that what the machine does meanwhile meets all of them, and prints a line each.
/// False if one is wrong.
bool compare(std::vector<lane>& lanes, double seconds, int least_rounds) {
    int clock = 1;
    for (const lane& x : lanes) clock = std::max(clock, x.row.what.threads);
    for (lane& x : lanes) {
        if (!x.job.wrong.empty()) {
            std::printf("%s  %s\n", x.job.wrong.c_str(), x.row.name().c_str());
            return false;
        }
        x.calls = std::clamp<index_t>(static_cast<index_t>(0.01 / time_of(x, clock)), 1, 10000);
    }
    const double start = now(wall);
    for (int round = 0; round < 41; ++round) {
        if (round >= least_rounds && now(wall) - start > seconds) break;
        for (std::size_t at = 0; at < lanes.size(); ++at) {
            lane& x = lanes[round % 2 ? lanes.size() - 1 - at : at];  // back and forth: a drift cancels
            const auto peak = [&] { return fma_rate<float>(x.row.what.threads, 0.002, 3); };
            const double before = peak();
            x.seconds.push_back(time_of(x, clock));
            x.peak.push_back(std::max(before, peak()));
        }
    }
    const machine& m = this_machine();
    for (const lane& x : lanes) {
        const double s = median(x.seconds);
        print_row("", s, x.flops() / s, x.of_peak(),
                  x.row.what.bytes() / s / m.bandwidth[std::min(x.row.what.threads, machine::most_threads)],
                  x.row.name().c_str());
    }
    return true;
}

/// Median of time(a) / time(b) over the rounds.
double time_ratio(const lane& a, const lane& b) {
    std::vector<double> all;
    for (std::size_t r = 0; r < a.seconds.size(); ++r) all.push_back(a.seconds[r] / b.seconds[r]);
    return median(all);
}

suite_row heed_row(const pattern& what, index_t D, index_t N, index_t H, dtype type = dtype::f32, int threads = 1) {
    return {{what, type, D, N, N, H, H, threads}, &contestants().front()};
}

class bars_table {
public:
    enum class wanted { at_least, at_most };

    void add(std::string what, double bar, double aim, double measured, wanted direction, std::string note = "") {
        entries_.push_back({std::move(what), bar, aim, measured, direction, std::move(note)});
    }
    int print() const {
        int missed = 0;
        std::printf("\n| what | bar | aim | measured | |\n|---|---|---|---|---|\n");
        for (const entry& e : entries_) {
            const auto met = [&](double bar) {
                return e.direction == wanted::at_least ? e.measured >= bar : e.measured <= bar;
            };
            missed += !met(e.bar);
            const char* sign = e.direction == wanted::at_least ? ">=" : "<=";
            std::printf("| %s | %s %.4g | %.4g | %.3g | %s%s%s |\n", e.what.c_str(), sign, e.bar, e.aim, e.measured,
                        met(e.aim)   ? "aim met"
                        : met(e.bar) ? "met"
                                     : "MISSED",
                        e.note.empty() ? "" : "; ", e.note.c_str());
        }
        return missed ? 1 : 0;
    }

private:
    struct entry {
        std::string what;
        double bar, aim, measured;
        wanted direction;
        std::string note;
    };
    std::vector<entry> entries_;
};

using wanted = bars_table::wanted;
constexpr double wrong_result = 0;

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
        std::vector<lane> lanes;
        lanes.emplace_back(heed_row(b.what, b.D, b.N, 8));
        const bool right = compare(lanes, 2, 7);
        table.add("of_peak, f32, " + b.what.name + ", D " + std::to_string(b.D) + ", N " + std::to_string(b.N), b.least,
                  b.aim, right ? lanes[0].of_peak() : wrong_result, wanted::at_least);
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
                const suite_row row = heed_row(what, D, N, N > 8192 ? 1 : N > 2048 ? 2 : 8);
                if (!openblas->able(row.what)) continue;
                std::vector<lane> lanes;
                lanes.emplace_back(row);
                lanes.emplace_back(suite_row{row.what, openblas});
                const double ratio = compare(lanes, 0.3, 5) ? time_ratio(lanes[1], lanes[0]) : wrong_result;
                std::printf("%50s %.2fx\n", "heed over openblas", ratio);
                if (ratio < least) least = ratio, where_least = row.what.name();
            }
    table.add("heed over OpenBLAS, the least of all points", 1.0, 1.3, least, wanted::at_least, where_least);
}

void types(bars_table& table) {
    std::vector<lane> lanes;
    lanes.emplace_back(heed_row(full, 128, 2048, 8, dtype::bf16));
    lanes.emplace_back(heed_row(full, 128, 2048, 8));
    const bool right = compare(lanes, 3, 9);
    table.add("bf16 over f32, D 128, N 2048", 1.5, 1.8, right ? time_ratio(lanes[1], lanes[0]) : wrong_result,
              wanted::at_least);
}

/// time(mask) / time(full) over area / N^2: 1 where skipping costs nothing.
void masks(bars_table& table) {
    std::vector<lane> lanes;
    lanes.emplace_back(heed_row(full, 64, 8192, 2));
    for (const pattern& what : published_masks()) lanes.emplace_back(heed_row(what, 64, 8192, 2));
    const bool right = compare(lanes, 0, 7);
    const auto worst = [&](bool short_documents) {
        double most = 0;
        std::string name = right ? "" : "wrong";
        for (std::size_t x = 1; x < lanes.size() && right; ++x) {
            const pattern& what = lanes[x].row.what.what;
            if ((has_documents(what) && what.parameter < 1024) != short_documents) continue;
            const double cost = time_ratio(lanes[x], lanes[0]) / (lanes[x].job.area / lanes[0].job.area);
            std::printf("%50s %.3f  %s\n", "time over area", cost, what.name.c_str());
            if (cost > most) most = cost, name = what.name;
        }
        return std::pair(right ? most : 1e9, name);
    };
    const auto usual = worst(false), with_short = worst(true);
    table.add("time over area, the worst of the masks, N 8192, documents of 1024", 1.25, 1.1, usual.first,
              wanted::at_most, usual.second);
    table.add("the same, documents of 160", 2.0, 2.0, with_short.first, wanted::at_most, with_short.second);
}

void threads_and_bits(bars_table& table) {
    for (index_t D : {128, 64}) {
        std::vector<lane> lanes;
        lanes.emplace_back(heed_row(full, D, 2048, 8));
        lanes.emplace_back(heed_row(full, D, 2048, 8, dtype::f32, 2));
        const bool right = compare(lanes, 3, 9);
        const bool same = std::memcmp(lanes[0].data->o.as<char>().data, lanes[1].data->o.as<char>().data,
                                      lanes[0].data->o.bytes()) == 0;
        table.add("two threads over one, N 2048, D " + std::to_string(D), 1.9, 1.9,
                  right && same ? time_ratio(lanes[0], lanes[1]) : wrong_result, wanted::at_least,
                  same ? "same bits" : "bits differ");
    }
}

void memory(bars_table& table) {
    for (index_t D : {64, 128}) {
        const suite_row row = heed_row(full, D, 16384, 8);
        operands x(row.what);
        table.add("scratch in MiB, N = M = 16384, 8 heads, D " + std::to_string(D), 4, 1,
                  static_cast<double>(heed_scratch(row.what, x)) / (1 << 20), wanted::at_most);
    }
}

}  // namespace

int print_bars() {
    print_machine();
    std::printf("of_peak here: over the peak measured before and after each call\n");
    print_row_header();
    bars_table table;
    memory(table);
    peaks(table);
    types(table);
    threads_and_bits(table);
    masks(table);
    against_openblas(table);
    return table.print();
}

}  // namespace bench
