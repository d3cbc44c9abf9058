// What attention writes has memory of its own: o and the records of probes overlap nothing that is read, and not each
// other. Refused before anything is written.
#include <gtest/gtest.h>

#include <heed/cache/contiguous.hpp>
#include <heed/heed.hpp>

#include "operands.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

struct scene : operands<float> {
    static constexpr index_t rows_ = 6, keys_ = 20, top = 3;
    tensor<float> o, sums, mass, all, table;
    std::vector<index_t> best = std::vector<index_t>(static_cast<std::size_t>(B * H * rows_ * top), -7);
    tensor<float> best_logits;
    scene()
        : operands<float>(rows_, keys_), o(rows()), sums({B, H, rows_, 1}), mass({B, H, keys_, 1}),
          all({B, H, rows_, keys_}), table(normal<float>({B, H, rows_, keys_}, 9)), best_logits({B, H, rows_, top}) {}

    view<index_t, 4> best_keys() { return dense(best.data(), {B, H, rows_, top}); }
    /// The arguments are refused with these words. attention_scratch checks them as attention does, and compiles no
    /// kernel.
    template <class... P>
    void refuses_with(const std::string& words, const P&... policies) {
        refuses<shape_error>([&] { attention_scratch(q, k, v, o, policies...); }, "attention_scratch: " + words);
    }
};

/// (B, H, n) numbers at p.
template <class T>
view<T, 3> numbers_at(T* p, index_t n) {
    return dense(p, {scene::B, scene::H, n});
}
template <class T>
view<T, 3> rows_at(T* p) {
    return numbers_at(p, scene::rows_);
}

TEST(attention_memory, records_overlap_no_operand) {
    scene x;
    const auto k = x.k.v(), v = x.v.v();
    refuses<shape_error>([&] { attention(x.q, x.k, x.v, x.o, lse{rows_at(x.o.v().data)}); },
                         "attention: lse overlaps o in memory");
    x.o.each([&](index_t b, index_t h, index_t n, index_t e) { ASSERT_TRUE(std::isnan(x.o(b, h, n, e))); });
    x.refuses_with("lse overlaps o in memory", lse{rows_at(x.o.v().data)});
    x.refuses_with("lse overlaps q in memory", lse{rows_at(x.q.v().data + 3)});
    x.refuses_with("row_max overlaps k in memory", causal{}, row_max{rows_at(k.data)});
    x.refuses_with("entropy overlaps v in memory", entropy{rows_at(v.data)}, softcap{3});
    x.refuses_with("key_mass overlaps k in memory", key_mass{numbers_at(k.data, scene::keys_)});
    x.refuses_with("logits overlaps k in memory",
                   logits{heads(k.data, {x.B, x.H, scene::rows_, scene::keys_}), stage::raw});
    auto* const inside = reinterpret_cast<index_t*>(x.q.v().data);
    x.refuses_with("top_keys (keys) overlaps q in memory",
                   top_keys{dense(inside, {x.B, x.H, scene::rows_, index_t(1)}),
                            slice(x.best_logits.v(), 3, {0, 1})});
}

TEST(attention_memory, records_overlap_no_other) {
    scene x;
    x.refuses_with("row_max overlaps lse in memory", lse{flat(x.sums)}, row_max{flat(x.sums)});
    x.refuses_with("logits overlaps logits in memory", logits{x.all.v(), stage::raw}, logits{x.all.v(), stage::masked});
    auto* const inside = reinterpret_cast<float*>(x.best.data());
    x.refuses_with("top_keys (logits) overlaps top_keys (keys) in memory",
                   top_keys{x.best_keys(), heads(inside, {x.B, x.H, scene::rows_, scene::top})});
}

TEST(attention_memory, records_have_no_stride_of_zero) {
    scene x;
    auto sums = flat(x.sums);
    sums.strides[1] = 0;
    x.refuses_with("lse has stride 0 on axis 1 of extent 4", lse{sums});
    auto masses = flat(x.mass);
    masses.strides[2] = 0;
    x.refuses_with("key_mass has stride 0 on axis 2 of extent 20", key_mass{masses});
}

TEST(attention_memory, tables_overlap_no_output) {
    scene x;
    float* const o = x.o.v().data;
    const view<float, 4> table = heads(o, {1, 1, scene::rows_, scene::keys_});
    const view<float, 3> of_rows = dense(o, {1, 1, scene::rows_}), of_keys = dense(o, {1, 1, scene::keys_});
    const view<int, 4> ids4 = heads(reinterpret_cast<int*>(o), {1, 1, scene::rows_, scene::keys_});
    const view<const int, 3> ids{ids4.data, {1, scene::rows_, scene::keys_}, {0, scene::keys_, 1}};
    const std::span<const float> of_heads(o, static_cast<std::size_t>(x.H));
    const std::span<const index_t> places(reinterpret_cast<index_t*>(o), 2);
    const view<float, 2> distances{o, {1, 9}, {0, 1}};
    x.refuses_with("o overlaps bias in memory", bias(table));
    x.refuses_with("o overlaps boolean in memory", boolean(table));
    x.refuses_with("o overlaps additive in memory", causal{} & additive(table));
    x.refuses_with("o overlaps keys_where in memory", window{3} | keys_where(of_keys));
    x.refuses_with("o overlaps lengths in memory", lengths{places});
    x.refuses_with("o overlaps document in memory", document{places});
    x.refuses_with("o overlaps global_tokens in memory", causal{} & (global_tokens{places} | window{2}));
    x.refuses_with("o overlaps block_list in memory", block_list(scene::rows_, scene::keys_, places, places));
    x.refuses_with("o overlaps dilated in memory", dilated(2, places));
    x.refuses_with("o overlaps rows_scale in memory", rows_scale(of_rows));
    x.refuses_with("o overlaps forget in memory", softcap{3} >> forget(of_keys));
    x.refuses_with("o overlaps relative in memory", scale{0.5} >> relative(distances) >> softcap{2});
    x.refuses_with("o overlaps alibi in memory", affinity(alibi{of_heads}));
    x.refuses_with("o overlaps head_scale in memory", head_scale{of_heads});
    x.refuses_with("o overlaps prior (shape) in memory", prior{std::span<const float>(), of_heads});
    x.refuses_with("o overlaps sink in memory", sink{of_heads});
    x.refuses_with("o overlaps relation's ids in memory", relation(x.table.v(), ids));
    x.refuses_with("o overlaps relation_mass (ids) in memory", relation_mass(x.all.v(), ids));
    x.refuses_with("o overlaps logits (rows) in memory", logits{x.all.v(), stage::raw, places});
    const std::span<const double> weights(reinterpret_cast<double*>(o), scene::rows_);
    x.refuses_with("o overlaps weighted_mass (weights) in memory", weighted_mass{flat(x.mass), weights});
    x.refuses_with("logits overlaps bias in memory", bias(x.all.v()), logits{x.all.v(), stage::scored});
}

TEST(attention_memory, nothing_overlaps_what_a_cache_holds) {
    scene x;
    contiguous_cache<float> cache{{x.B, x.G, 6, x.E}};
    cache.append(x.k, x.v);
    auto* const held = reinterpret_cast<float*>(const_cast<std::byte*>(cache.memory().data()));
    refuses<shape_error>([&] { attention_scratch(x.q, cache, x.o, lse{rows_at(held)}); },
                         "attention_scratch: lse overlaps the source in memory");
    refuses<shape_error>([&] { attention_scratch(x.q, cache, heads(held, x.rows())); },
                         "attention_scratch: o overlaps the source in memory");
}

TEST(attention_memory, parts_refuse_records_in_the_output) {
    scene x;
    const std::vector<index_t> cuts{0, scene::keys_};
    tensor<float> mass({x.B, x.H, scene::rows_, 1});
    refuses<shape_error>([&] { segment_attention(x.q, x.k, x.v, x.o, cuts, mass, lse{rows_at(x.o.v().data)}); },
                         "segment_attention: lse overlaps o in memory");
}

TEST(attention_memory, records_may_be_members_of_structs) {
    scene x;
    std::vector<float> pairs(static_cast<std::size_t>(2 * x.B * x.H * scene::rows_));
    const extents<3> shape{x.B, x.H, scene::rows_}, strides{2 * x.H * scene::rows_, 2 * scene::rows_, 2};
    const view<float, 3> first{pairs.data(), shape, strides}, second{pairs.data() + 1, shape, strides};
    attention(x.q, x.k, x.v, x.o, lse{first}, row_max{second});
    tensor<float> alone(x.o.shape());
    attention(x.q, x.k, x.v, alone, lse{flat(x.sums)});
    for (index_t b = 0; b < x.B; ++b)
        for (index_t h = 0; h < x.H; ++h)
            for (index_t n = 0; n < scene::rows_; ++n)
                EXPECT_EQ(pairs[static_cast<std::size_t>(2 * ((b * x.H + h) * scene::rows_ + n))], x.sums(b, h, n, 0));
}

}  // namespace
