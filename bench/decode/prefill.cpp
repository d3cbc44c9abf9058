// Prompts that are prefilled for decoding: causal attention with rotary keys, and what it costs to do more or less than
// that: dual chunks of a quarter, star attention of eight blocks, eight pieces encoded in parallel, and the votes and
// the choice of SnapKV; and over caches that store keys and values in different types. Judged by the definition on the
// last rows.
#include "prefill.hpp"

#include <heed/ref/rotary_attention.hpp>

namespace bench {
namespace {

constexpr index_t H = 4, G = 2, D = 64, judged_rows = 3;

struct text {
    aligned_vector<float> memory;
    index_t N;
    view<float> q, k, v, turned_q, turned_k, o;

    explicit text(index_t n) : memory(static_cast<std::size_t>((3 * H + 3 * G) * n * D)), N(n) {
        const counter_random random(1);
        for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(random.normal(i));
        float* at = memory.data();
        const auto next = [&](index_t of) { return heads(std::exchange(at, at + of * N * D), {1, of, N, D}); };
        q = next(H), turned_q = next(H), o = next(H), k = next(G), turned_k = next(G), v = next(G);
    }
};
using job_of_text = std::function<void(const text&, const on<threads>&)>;

/// Where query i looks for key j, and whether it does.
struct rule {
    std::function<ref::places(index_t i, index_t j)> at;
    std::function<bool(index_t i, index_t j)> sees;
};

double error(const text& x, const rule& by) {
    const range rows{x.N - judged_rows, x.N};
    const view<float> q = slice(x.q, 2, rows);
    std::vector<double> memory(static_cast<std::size_t>(H * judged_rows * D));
    const auto right = heads(memory.data(), {1, H, judged_rows, D});
    auto with = ref::rotary_options<double>(q, x.k, by.at);
    with.visible = [&](index_t, index_t, index_t, index_t i, index_t j) { return j <= i && by.sees(i, j); };
    ref::attention(q, x.k, x.v, right, with);
    double most = 0, largest = 0;
    for (index_t h = 0; h < H; ++h)
        for (index_t n = 0; n < judged_rows; ++n)
            for (index_t d = 0; d < D; ++d) {
                const double off = std::abs(static_cast<double>(x.o(0, h, rows.first + n, d)) - right(0, h, n, d));
                if (!(off <= most)) most = off;
                largest = std::max(largest, std::abs(right(0, h, n, d)));
            }
    return most / largest;
}

/// dtype: as what K and V are stored, to an error of at most `tolerance`.
measurement measured(const std::string& name, index_t N, int crew, double pairs, const rule& by,
                     const job_of_text& run, const std::string& dtype = "f32", double tolerance = 1e-4) {
    const std::string shape = "/d:64/n:" + std::to_string(N) + "/h:4/threads:" + std::to_string(crew) + "/heed";
    return {"decode/prefill_" + name + "/" + dtype + shape, crew, [=] {
                const auto x = at_hand("text " + std::to_string(N), [&] { return text(N); });
                const auto pool = std::make_shared<threads>(crew);
                const job once = [=] { run(*x, on{*pool}); };
                once();
                const double off = error(*x, by);
                prepared out{.run = once};
                if (!(off <= tolerance)) out.wrong = "wrong: off by " + std::to_string(off) + " of the largest";
                out.flops = 4 * static_cast<double>(H * D) * pairs;
                out.bytes = static_cast<double>((2 * H + 2 * G) * N * D) * sizeof(float);
                out.columns.emplace_back("error", off);
                out.output = std::as_bytes(std::span<const float>(x->o.data, static_cast<std::size_t>(H * N * D)));
                return out;
            }};
}

/// Queries and keys turned by their positions.
void turn(const text& x) {
    rotary(x.q, x.turned_q);
    rotary(x.k, x.turned_k);
}

/// Appended to a cache, and attended to there.
template <class Cache>
void fill(const text& x, const on<threads>& pool) {
    turn(x);
    Cache cache({1, G, D, D});
    cache.reserve(x.N);
    cache.append(x.turned_k, x.v);
    attention(x.turned_q, cache, x.o, causal{}, pool);
}

void vote(const text& x, const on<threads>& pool) {
    turn(x);
    const snap_kv choice{.budget = x.N / 8, .window = 32};
    std::vector<float> mass(static_cast<std::size_t>(H * x.N)), sums(static_cast<std::size_t>(G * x.N));
    const auto votes = last_rows(x.N, choice.window);
    attention(x.turned_q, x.turned_k, x.v, x.o, causal{}, pool, weighted_mass{dense(mass.data(), {1, H, x.N}), votes});
    group_mass(dense(mass.data(), {1, H, x.N}), dense(sums.data(), {1, G, x.N}));
    for (const auto& kept : choice.kept(dense(sums.data(), {G, x.N}), 1))
        if (static_cast<index_t>(kept.size()) != choice.budget) throw std::logic_error("the budget is not kept");
}

}  // namespace

std::vector<measurement> prefill_rows(index_t N, int crew) {
    const auto own = [](index_t i, index_t j) { return ref::places{i, j}; };
    const auto all = [](index_t, index_t) { return true; };
    const double pairs = static_cast<double>(area(causal{}, 1, 1, N, N));
    const auto chunks = dual_chunk::trained(N / 4);
    const index_t block = N / 8;
    std::vector<index_t> pieces;  // eight behind a prefix of 4 tokens, before a question of 64
    for (index_t p = 0; p <= 8; ++p) pieces.push_back(4 + p * (N - 68) / 8);
    return {
        measured("causal", N, crew, pairs, {own, all},
                 [](const text& x, const on<threads>& pool) {
                     turn(x);
                     attention(x.turned_q, x.turned_k, x.v, x.o, causal{}, pool);
                 }),
        measured("dual_chunk", N, crew, pairs,
                 {[=](index_t i, index_t j) { return ref::dual_chunk_places(i, j, chunks.chunk, chunks.cap); }, all},
                 [=](const text& x, const on<threads>& pool) {
                     rotary(x.k, x.turned_k, chunks.keys());
                     dual_chunk_attention(x.q, x.turned_k, x.v, x.o, chunks, pool);
                 }),
        measured("star8", N, crew, static_cast<double>(area(star(block), 1, 1, N, N)),
                 {own, [=](index_t i, index_t j) { return j / block == i / block || j < block; }},
                 [=](const text& x, const on<threads>& pool) {
                     turn(x);
                     star_context(x.turned_q, x.turned_k, x.v, x.o, block, pool);
                 }),
        measured("parallel8", N, crew, static_cast<double>(area(parallel_context(pieces), 1, 1, N, N)),
                 {own, [=](index_t i, index_t j) { return parallel_context(pieces).allows({0, 0, 0, i, j}); }},
                 [=](const text& x, const on<threads>& pool) {
                     turn(x);
                     attention(x.turned_q, x.turned_k, x.v, x.o, parallel_context(pieces), pool);
                 }),
        measured("snap_kv", N, crew, pairs, {own, all}, vote),
        measured("causal", N, crew, pairs, {own, all}, fill<contiguous_cache<bf16, f16>>, "bf16_f16", 3e-2),
        measured("causal", N, crew, pairs, {own, all}, fill<quantised_cache<int8_per_token, int4_per_group<32>>>,
                 "int8_int4", 0.5),
    };
}

}  // namespace bench
