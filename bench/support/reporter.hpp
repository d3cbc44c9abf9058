// The table on the terminal: a line per row, the median of its repetitions, as it goes.
#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>

#include "measurement.hpp"

namespace bench {

class table_reporter : public benchmark::BenchmarkReporter {
public:
    explicit table_reporter(std::size_t rows) : rows_(rows) {}
    bool ReportContext(const Context&) override;
    void ReportRuns(const std::vector<Run>& runs) override;

private:
    std::size_t rows_, done_ = 0;
};

/// One line of that table.
void print_row(const char* progress, const rates& r, double error, const char* name);
void print_row_header();
void print_machine();

}  // namespace bench
