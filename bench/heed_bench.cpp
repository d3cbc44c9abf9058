// heed_bench: attention, measured against others.
//
//   heed_bench            the full suite            (all flags of Google Benchmark work)
//   heed_bench --short    minutes instead
//   heed_bench --bars     what heed promises, against what it does
#include <benchmark/benchmark.h>

#include <cstdio>
#include <regex>

#include "bars.hpp"
#include "support/clock.hpp"
#include "support/machine.hpp"
#include "support/reporter.hpp"
#include "support/workbench.hpp"

namespace bench {
namespace {

void run(benchmark::State& state, const suite_row& row) {
    static workbench bench;
    const checked_job& job = bench.ready(row);
    if (!job.wrong.empty()) {
        state.SkipWithError(job.wrong.c_str());
        return;
    }
    const problem& p = row.what;
    const double start = now(p.threads);
    for (auto _ : state) job.run();
    const double seconds = (now(p.threads) - start) / static_cast<double>(state.iterations());

    const machine& m = this_machine();
    const int threads = std::min(p.threads, machine::most_threads);
    const double peak = p.type == dtype::f64 ? m.f64[threads] : m.f32[threads];
    const double flops = p.flops(job.area) / seconds, bytes = p.bytes() / seconds;
    state.counters["seconds"] = seconds;
    state.counters["FLOPS"] = flops;
    state.counters["of_peak"] = flops / peak;
    state.counters["bytes_per_second"] = bytes;
    state.counters["of_bandwidth"] = bytes / m.bandwidth[threads];
    state.counters["area"] = job.area;
}

/// How many rows the filter leaves, for the progress column.
std::size_t matching(const std::vector<suite_row>& rows, std::string filter) {
    if (filter.empty() || filter == "all") filter = ".";
    const bool without = filter[0] == '-';
    const std::regex wanted(filter.substr(without ? 1 : 0), std::regex::extended);
    return static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [&](const suite_row& row) {
        return std::regex_search(row.name(), wanted) != without;
    }));
}

struct arguments {
    bool is_short = false, bars = false, list = false, own_format = true;
    std::vector<char*> rest;

    arguments(int argc, char** argv) {
        // Rows carry exactly their names, so repetitions are told by flags; later ones, the caller's, win.
        static char defaults[][48] = {"--benchmark_repetitions=5", "--benchmark_min_time=0.02",
                                      "--benchmark_report_aggregates_only=true"};
        rest.push_back(argv[0]);
        for (auto& flag : defaults) rest.push_back(flag);
        for (int a = 1; a < argc; ++a) {
            const std::string_view flag = argv[a];
            if (flag == "--short")
                is_short = true;
            else if (flag == "--bars")
                bars = true;
            else
                rest.push_back(argv[a]);
            list |= flag.starts_with("--benchmark_list_tests") || flag == "--help";
            own_format &= !flag.starts_with("--benchmark_format");
        }
    }
};

int main_of(int argc, char** argv) {
    arguments given(argc, argv);
    if (given.bars) return print_bars();
    int count = static_cast<int>(given.rest.size());
    benchmark::Initialize(&count, given.rest.data());
    if (benchmark::ReportUnrecognizedArguments(count, given.rest.data())) return 1;

    const auto rows = given.is_short ? short_suite() : full_suite();
    for (const suite_row& row : rows)
        benchmark::RegisterBenchmark(row.name().c_str(), run, row)->Unit(benchmark::kMillisecond);
    if (!given.list) {
        const machine& m = this_machine();
        benchmark::AddCustomContext("fma_peak_f32", std::to_string(m.f32[1]));
        benchmark::AddCustomContext("fma_peak_f64", std::to_string(m.f64[1]));
        benchmark::AddCustomContext("read_stream", std::to_string(m.bandwidth[1]));
    }
    if (given.own_format && !given.list) {
        print_machine();
        table_reporter table(matching(rows, benchmark::GetBenchmarkFilter()));
        benchmark::RunSpecifiedBenchmarks(&table);
    } else {
        benchmark::RunSpecifiedBenchmarks();
    }
    benchmark::Shutdown();
    return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::main_of(argc, argv); }
