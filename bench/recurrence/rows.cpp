// What is measured of recurrences: each operator from short sequences to long, its forms, rivals where they are not too
// slow.
#include "../support/families.hpp"
#include "contestants.hpp"

namespace bench {
namespace {

constexpr const char* operators[] = {"additive", "retention", "simple_gla", "gla",    "deltanet", "gated_deltanet",
                                     "kda",      "rwkv6",     "rwkv7",      "mamba2", "based"};

/// Mamba-2's heads are 64 wide with a state of 128; based's and rebased's keys are of 16 numbers.
recurrence_task task_of(const std::string& op, index_t D, index_t N, index_t H, int threads = 1) {
    const bool squares = op == "based" || op == "rebased";
    return {op, op == "mamba2" ? 128 : squares ? 16 : D, op == "mamba2" ? 64 : D, N, H, threads};
}
/// Whether a contestant is worth waiting for, and has the operator.
bool takes_part(const std::string& by, const recurrence_task& t) {
    const bool rwkv = t.op.starts_with("rwkv");
    if (by == "naive" || by == "eigen") return !rwkv && t.op != "based" && t.N <= 4096;
    return by != "heed.parallel" || t.N <= 4096;
}
void add(std::vector<measurement>& rows, const recurrence_task& t) {
    for (const recurrence_contestant& c : recurrence_contestants())
        if (takes_part(c.name, t)) rows.push_back(measured(t, c.name));
}

/// Definitions are slow, some of them in N^2: they take part up to a length.
void add_composites(std::vector<measurement>& rows, index_t D, const std::vector<index_t>& lengths, index_t slowest,
                    int threads = 1) {
    for (index_t N : lengths)
        for (const composite& c : composites()) {
            const recurrence_task t = task_of(c.op, D, N, 8, threads);
            if (c.by == "heed" || N <= slowest)
                rows.push_back({t.name("f32") + "/" + c.by, threads, [=] { return c.prepare(t); }});
        }
}

std::vector<measurement> whole_rows() {
    std::vector<measurement> rows;
    for (const char* op : operators) {
        for (index_t D : {64, 128})
            for (index_t N = 256; N <= 16384; N *= 2) add(rows, task_of(op, D, N, 8));
        for (index_t N : {65536, 262144, 1048576}) rows.push_back(measured(task_of(op, 64, N, 1)));
        for (index_t D : {64, 128}) rows.push_back(measured(task_of(op, D, 2048, 8, 2)));
        rows.push_back(step_measured(task_of(op, 128, 1, 32)));
    }
    for (index_t D : {64, 128}) {
        add_composites(rows, D, {256, 1024, 4096, 16384}, 1024);
        add_composites(rows, D, {2048}, 0, 2);
    }
    return rows;
}

std::vector<measurement> brief_rows() {
    std::vector<measurement> rows;
    for (const char* op : operators) {
        for (index_t N : {256, 1024, 4096, 16384}) rows.push_back(measured(task_of(op, 64, N, 8)));
        if (op == std::string("additive") || op == std::string("gated_deltanet"))
            for (const char* by : {"naive", "eigen"}) rows.push_back(measured(task_of(op, 64, 1024, 8), by));
    }
    add_composites(rows, 64, {1024}, 0);
    return rows;
}

}  // namespace

std::vector<measurement> recurrence_rows(length extent) {
    return extent == length::whole ? whole_rows() : brief_rows();
}

}  // namespace bench
