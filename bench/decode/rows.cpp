// What is measured of decoding: every cache from short to long, rivals where they are not too slow; and of the prompts
// before.
#include "../support/families.hpp"
#include "decoder.hpp"
#include "prefill.hpp"

namespace bench {

std::vector<decoder> evicting_decoders();

namespace {

std::vector<measurement> whole_rows() {
    std::vector<measurement> rows;
    for (index_t M = 1024; M <= 131072; M *= 2)
        for (int threads : {1, 2})
            for (const auto& list : {decoders(), evicting_decoders()})
                for (const decoder& d : list) rows.push_back(measured(d, {M, threads}));
    for (index_t N : {4096, 16384})
        for (int threads : {1, 2})
            for (measurement& row : prefill_rows(N, threads)) rows.push_back(std::move(row));
    return rows;
}

std::vector<measurement> brief_rows() {
    std::vector<measurement> rows;
    for (index_t M : {4096, 32768})
        for (int threads : {1, 2}) {
            const decode_step s{M, threads};
            for (const char* dtype : {"f32", "bf16", "f16", "int8"}) rows.push_back(measured("contiguous", dtype, s));
            for (const char* cache : {"paged16", "paged64", "stream", "quest", "sparf", "qada", "ltri", "segment_mass",
                                      "beams_in_1_group", "beams_in_4_groups"})
                rows.push_back(measured(cache, "f32", s));
            for (const decoder& d : evicting_decoders()) rows.push_back(measured(d, s));
            if (M == 4096)
                for (const char* by : {"naive", "eigen"}) rows.push_back(measured("contiguous", "f32", s, by));
        }
    for (measurement& row : prefill_rows(4096, 1)) rows.push_back(std::move(row));
    return rows;
}

}  // namespace

std::vector<measurement> decode_rows(length extent) { return extent == length::whole ? whole_rows() : brief_rows(); }

}  // namespace bench
