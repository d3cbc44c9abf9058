// heed_bench: heed, measured against others.
//
//   heed_bench                  the full suite            (all flags of Google Benchmark work)
//   heed_bench --short          minutes instead
//   heed_bench --bars[=name]    what heed promises, against what it does; all of it, or what has `name` in its name
#include <benchmark/benchmark.h>

#include <algorithm>
#include <optional>
#include <regex>

#include "support/clock.hpp"
#include "support/families.hpp"
#include "support/machine.hpp"
#include "support/reporter.hpp"

namespace bench {
namespace {

/// Makes a measurement ready, once for all its repetitions, which come in a row.
const prepared& ready(const measurement& what) {
    static std::string name;
    static prepared last;
    if (name != what.name) {
        last = {};  // before the next one takes its memory
        last = what.ready();
        name = what.name;
    }
    return last;
}

void run(benchmark::State& state, const measurement& what) {
    const prepared& call = ready(what);
    if (!call.wrong.empty()) {
        state.SkipWithError(call.wrong.c_str());
        return;
    }
    const double start = now(what.threads);
    for (auto _ : state) call.run();
    const rates r = rates_of(call, what.threads, (now(what.threads) - start) / static_cast<double>(state.iterations()));
    state.counters["seconds"] = r.seconds;
    state.counters["FLOPS"] = r.flops;
    state.counters["of_peak"] = r.of_peak;
    state.counters["bytes_per_second"] = r.bytes;
    state.counters["of_bandwidth"] = r.of_bandwidth;
    for (const auto& [name, value] : call.columns) state.counters[name] = value;
}

/// How many rows the filter leaves, for the progress column.
std::size_t matching(const std::vector<measurement>& rows, std::string filter) {
    if (filter.empty() || filter == "all") filter = ".";
    const bool without = filter[0] == '-';
    const std::regex wanted(filter.substr(without ? 1 : 0), std::regex::extended);
    return static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [&](const measurement& row) {
        return std::regex_search(row.name, wanted) != without;
    }));
}

struct arguments {
    length extent = length::whole;
    std::optional<std::string_view> bars;  // which
    bool list = false, own_format = true;
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
                extent = length::brief;
            else if (flag == "--bars")
                bars = "";
            else if (flag.starts_with("--bars="))
                bars = flag.substr(flag.find('=') + 1);
            else
                rest.push_back(argv[a]);
            list |= flag.starts_with("--benchmark_list_tests") || flag == "--help";
            own_format &= !flag.starts_with("--benchmark_format");
        }
    }
};

int main_of(int argc, char** argv) {
    arguments given(argc, argv);
    if (given.bars) return print_bars(*given.bars);
    int count = static_cast<int>(given.rest.size());
    benchmark::Initialize(&count, given.rest.data());
    if (benchmark::ReportUnrecognizedArguments(count, given.rest.data())) return 1;

    const auto rows = suite(given.extent);
    for (const measurement& row : rows)
        benchmark::RegisterBenchmark(row.name.c_str(), run, row)->Unit(benchmark::kMillisecond);
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
