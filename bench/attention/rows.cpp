// What is measured of attention: every mask, type and length, against whoever else can.
#include "../support/families.hpp"
#include "measured.hpp"
#include "patterns.hpp"

namespace bench {
namespace {

constexpr dtype every_type[] = {dtype::f32, dtype::bf16, dtype::f16, dtype::f64};
constexpr auto naive_reach = 256;  // rows; what the loops of longer ones would show is known by then

class builder {
public:
    std::vector<measurement> rows;

    void heed(const problem& p) { rows.push_back(measured(p)); }
    void everyone(const problem& p) {
        for (const contestant& c : contestants())
            if (c.able(p) && (std::string_view(c.name) != "naive" || p.N <= naive_reach))
                rows.push_back(measured(p, c));
    }
};

problem square(const pattern& what, dtype type, index_t D, index_t N, index_t H, int threads = 1) {
    return {what, type, D, N, N, H, H, threads};
}

std::vector<measurement> whole_rows() {
    builder b;
    const auto heads_at = [](index_t N) { return index_t(N > 8192 ? 2 : 8); };
    for (const pattern& what : {full, causal_mask})
        for (dtype type : every_type)
            for (index_t D : {64, 128, 32, 80, 256})
                for (index_t N = 64; N <= 16384; N *= 2) {
                    const problem p = square(what, type, D, N, heads_at(N));
                    D == 64 || D == 128 ? b.everyone(p) : b.heed(p);
                }
    for (const pattern& what : {full, causal_mask})
        for (index_t D : {64, 128})
            for (index_t N : {256, 2048, 8192}) b.everyone(square(what, dtype::f32, D, N, 8, 2));
    for (index_t N = 64; N <= 16384; N *= 2) b.heed(square(window_512, dtype::f32, 64, N, heads_at(N)));
    for (const pattern& what : published_masks()) b.heed(square(what, dtype::f32, 64, 8192, 8));
    for (int block : {64, 128})
        for (int percent : {10, 20, 50, 80, 100})
            for (index_t N : {4096, 16384}) b.heed(square(block_sparse(block, percent), dtype::f32, 64, N, 2));
    for (problem p : models())
        for (dtype type : {dtype::f32, dtype::bf16})
            for (int threads : {1, 2}) {
                p.type = type;
                p.threads = threads;
                if (contestants().front().able(p)) b.everyone(p);
            }
    return std::move(b.rows);
}

std::vector<measurement> brief_rows() {
    builder b;
    for (const pattern& what : {full, causal_mask}) {
        for (index_t N : {64, 128, 256, 512, 1024, 2048}) b.everyone(square(what, dtype::f32, 64, N, 8));
        b.everyone(square(what, dtype::f32, 64, 4096, 2));
        for (index_t N : {8192, 16384}) b.heed(square(what, dtype::f32, 64, N, 1));
    }
    for (const pattern& what : {full, causal_mask})
        for (dtype type : every_type)
            for (index_t N : {64, 256, 1024, 2048}) b.heed(square(what, type, 128, N, 4));
    for (index_t D : {32, 64, 80, 128, 256}) b.heed(square(full, dtype::f32, D, 1024, 8));
    for (index_t N : {256, 1024, 4096, 16384}) b.heed(square(window_512, dtype::f32, 64, N, 1));
    for (const pattern& what : {full, causal_mask}) b.everyone(square(what, dtype::f32, 64, 2048, 8, 2));
    b.heed(square(full, dtype::f32, 64, 8192, 1));
    for (const pattern& what : published_masks()) b.heed(square(what, dtype::f32, 64, 8192, 1));
    for (int block : {64, 128})
        for (int percent : {10, 20, 50, 80, 100}) b.heed(square(block_sparse(block, percent), dtype::f32, 64, 4096, 1));
    for (problem p : models()) {
        b.heed(p);
        p.type = dtype::bf16;
        if (!p.plain()) b.heed(p);  // what a score or a weight costs where the products are cheaper
    }
    return std::move(b.rows);
}

}  // namespace

std::vector<measurement> attention_rows(length extent) { return extent == length::whole ? whole_rows() : brief_rows(); }

}  // namespace bench
