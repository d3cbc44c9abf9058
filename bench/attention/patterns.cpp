#include "patterns.hpp"

#include <algorithm>
#include <heed/core/random.hpp>
#include <numeric>

namespace bench {
namespace {

using offsets = std::vector<index_t>;

/// Starts of documents and the end. Lengths are uniform in [0.2, 1.8] of the average; 160 gives 32 to 288 tokens, where
/// the histogram of LongCA-bench has its mass.
std::shared_ptr<offsets> documents(index_t N, int average) {
    const counter_random random(160, static_cast<std::uint64_t>(average));
    auto at = std::make_shared<offsets>(offsets{0});
    for (std::uint64_t d = 0; at->back() < N; ++d)
        at->push_back(std::min(N, at->back() + random.integer(d, average / 5, average * 9 / 5 + 1)));
    return at;
}

/// A mask made of document offsets, kept alive with them.
template <auto Make>
any_mask over_documents(index_t N, index_t, int average) {
    const auto at = documents(N, average);
    return {Make(patterns::document_offsets(*at), average), at};
}

template <int Block>
any_mask random_blocks(index_t N, index_t M, int percent) {
    const index_t rows = ceil_div(N, Block), columns = ceil_div(M, Block);
    const index_t kept = std::clamp<index_t>((columns * percent + 50) / 100, 1, columns);
    struct lists {
        offsets starts{0}, blocks;
    };
    auto list = std::make_shared<lists>();
    offsets order(static_cast<std::size_t>(columns));
    for (index_t r = 0; r < rows; ++r) {
        const counter_random random(static_cast<std::uint64_t>(Block), static_cast<std::uint64_t>(r));
        std::iota(order.begin(), order.end(), index_t(0));
        std::swap(order[0], order[static_cast<std::size_t>(r * columns / rows)]);  // the diagonal stays in front
        for (index_t c = 1; c < kept; ++c)
            std::swap(order[static_cast<std::size_t>(c)],
                      order[static_cast<std::size_t>(random.integer(static_cast<std::uint64_t>(c), c, columns))]);
        std::sort(order.begin(), order.begin() + kept);
        list->blocks.insert(list->blocks.end(), order.begin(), order.begin() + kept);
        list->starts.push_back(static_cast<index_t>(list->blocks.size()));
    }
    return {block_list(Block, Block, list->starts, list->blocks), list};
}

any_mask windowed(index_t, index_t, int reach) { return window(reach - 1, 0); }

problem model(const char* name, index_t N, index_t H, index_t G, index_t D) {
    problem p;
    p.what.name = name;
    p.N = p.M = N;
    p.H = H;
    p.G = G;
    p.D = D;
    return p;
}

}  // namespace

const pattern causal_mask{"causal", [](index_t, index_t, int) -> any_mask { return patterns::causal(); }};
const pattern window_512{"window_512", windowed, 512};

std::vector<pattern> published_masks() {
    using at = patterns::document_offsets;
    std::vector<pattern> all{
        causal_mask,
        {"prefix_lm", [](index_t N, index_t, int) -> any_mask { return patterns::prefix_lm(N / 4); }},
        {"sliding_window", [](index_t N, index_t, int) -> any_mask { return patterns::sliding_window(N / 8, N / 8); }},
        {"causal_sliding_window",
         [](index_t N, index_t, int) -> any_mask { return patterns::causal_sliding_window(N / 8); }},
        {"global_sliding_window",
         [](index_t N, index_t, int) -> any_mask { return patterns::global_sliding_window(N / 32, N / 16); }},
    };
    for (int average : {160, 1024}) {
        const auto add = [&](const char* name, auto make) {
            all.push_back({std::string(name) + "_" + std::to_string(average), make, average});
        };
        add("full_document", over_documents<[](at x, int) { return patterns::full_document(x); }>);
        add("causal_document", over_documents<[](at x, int) { return patterns::causal_document(x); }>);
        add("share_question_document", over_documents<[](at x, int) { return patterns::share_question(x); }>);
        add("causal_blockwise_document", over_documents<[](at x, int) { return patterns::causal_blockwise(x); }>);
        add("prefix_lm_document", over_documents<[](at x, int a) { return patterns::prefix_lm_document(x, a / 4); }>);
        add("block_causal_document",
            over_documents<[](at x, int a) { return patterns::block_causal_document(x, a / 4); }>);
    }
    return all;
}

pattern block_sparse(int block, int percent) {
    return {"block_sparse_" + std::to_string(block) + "_" + std::to_string(percent),
            block == 64 ? random_blocks<64> : random_blocks<128>, percent};
}

std::vector<problem> models() {
    std::vector<problem> all;
    const auto add = [&](problem p) -> problem& { return all.emplace_back(std::move(p)); };
    add(model("bert_base", 512, 12, 12, 64));
    add(model("vit_l16", 197, 16, 16, 64));
    add(model("llama3_8b", 2048, 32, 8, 128)).what.make = causal_mask.make;
    {
        auto& p = add(model("llama3_8b_decode", 1, 32, 8, 128));
        p.M = 4096;
        p.what.make = causal_mask.make;
    }
    {
        auto& p = add(model("mistral_7b", 6144, 32, 8, 128)).what;
        p.make = windowed;
        p.parameter = 4096;
    }
    {
        auto& p = add(model("gemma2_9b", 2048, 16, 8, 256)).what;
        p.make = causal_mask.make;
        p.softcap = 50;
        p.scale = 1.0 / 16;
    }
    {
        auto& p = add(model("gpt_oss_20b", 2048, 64, 8, 64)).what;  // every other layer: 128 keys and a sink logit
        p.make = windowed;
        p.parameter = 128;
        p.sinks = true;
    }
    return all;
}

}  // namespace bench
