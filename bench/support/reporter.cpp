#include "reporter.hpp"

#include <cstdio>

#include "machine.hpp"

namespace bench {
namespace {

/// Google Benchmark 1.8 made a choice of reasons out of the flag.
template <class Run>
bool failed(const Run& run) {
    if constexpr (requires { run.error_occurred; })
        return run.error_occurred;
    else
        return bool(run.skipped);
}
template <class Run>
const auto& message(const Run& run) {
    if constexpr (requires { run.error_message; })
        return run.error_message;
    else
        return run.skip_message;
}

double counter(const benchmark::BenchmarkReporter::Run& run, const char* name) {
    const auto at = run.counters.find(name);
    return at == run.counters.end() ? 0 : at->second.value;
}

}  // namespace

void print_machine() {
    const machine& m = this_machine();
    for (int t = 1; t <= machine::most_threads; ++t)
        std::printf("%d thread%s FMA peak %.1f GFLOP/s f32, %.1f f64; read stream %.1f GB/s\n", t, t > 1 ? "s:" : ": ",
                    m.f32[t] * 1e-9, m.f64[t] * 1e-9, m.bandwidth[t] * 1e-9);
    std::printf(
        "of_peak: useful flops over the f32 peak (f64 rows: over the f64 peak); bf16 has a peak of its own, "
        "twice as high where there are dot products.\n\n");
}

void print_row_header() {
    std::printf("%9s %12s %9s %8s %8s %8s  %s\n", "", "ms", "GFLOP/s", "of_peak", "of_read", "error", "name");
}

void print_row(const char* progress, const rates& r, double error, const char* name) {
    char shown[16] = "";
    if (error > 0) std::snprintf(shown, sizeof shown, "%8.1e", error);
    std::printf("%9s %12.4f %9.1f %8.2f %8.2f %8s  %s\n", progress, r.seconds * 1e3, r.flops * 1e-9, r.of_peak,
                r.of_bandwidth, shown, name);
    std::fflush(stdout);
}

bool table_reporter::ReportContext(const Context&) {
    print_row_header();
    return true;
}

void table_reporter::ReportRuns(const std::vector<Run>& runs) {
    for (const Run& run : runs) {
        const bool median = run.run_type == Run::RT_Aggregate && run.aggregate_name == "median";
        const bool single = run.run_type == Run::RT_Iteration && run.repetitions <= 1;
        const bool wrong = failed(run) && run.repetition_index <= 0;
        if (!median && !single && !wrong) continue;
        const std::string name = run.run_name.str();
        const std::string progress = "[" + std::to_string(++done_) + "/" + std::to_string(rows_) + "]";
        if (wrong) {
            std::printf("%9s %s  %s\n", progress.c_str(), message(run).c_str(), name.c_str());
            std::fflush(stdout);
        } else {
            rates r;
            r.seconds = counter(run, "seconds");
            r.flops = counter(run, "FLOPS");
            r.of_peak = counter(run, "of_peak");
            r.of_bandwidth = counter(run, "of_bandwidth");
            print_row(progress.c_str(), r, counter(run, "error"), name.c_str());
        }
    }
}

}  // namespace bench
