// The masks of published systems, each built from the vocabulary: its definition and its name.
//
// namespace patterns holds the fourteen of LongCA-bench [5]; `offsets` are the starts of packed documents and the end.
#pragma once

#include "mask_segment.hpp"
#include "mask_stride.hpp"

namespace heed::inline HEED_ABI {
namespace patterns {

using document_offsets = std::span<const index_t>;

constexpr auto full() { return everything{}; }
constexpr auto causal() { return heed::causal{}; }
/// doc(i) == doc(j); long documents are the same set with other offsets.
constexpr auto full_document(document_offsets offsets) { return document(offsets); }
constexpr auto full_long_document(document_offsets offsets) { return full_document(offsets); }
/// doc(i) == doc(j) and j <= i.
constexpr auto causal_document(document_offsets offsets) { return document(offsets, heed::causal{}); }
constexpr auto causal_long_document(document_offsets offsets) { return causal_document(offsets); }
/// j <= i and (doc(i) == doc(j) or doc(j) == 0): answers see the question and themselves.
constexpr auto share_question(document_offsets offsets) {
    return heed::causal{} & (document(offsets) | first(offsets.size() > 1 ? offsets[1] : 0));
}
/// j <= i and (doc(i) == doc(j) or i in the last document).
constexpr auto causal_blockwise(document_offsets offsets) {
    const index_t last = offsets.size() > 1 ? offsets[offsets.size() - 2] : 0;
    return heed::causal{} & (document(offsets) | queries_from(last));
}
/// j <= i or (i < p and j < p).
constexpr auto prefix_lm(index_t p) { return heed::causal{} | prefix(p); }
/// The same inside each document; one no longer than p is seen whole.
constexpr auto prefix_lm_document(document_offsets offsets, index_t p) { return document(offsets, prefix_lm(p)); }
/// i - left <= j <= i + right; negative is open.
constexpr auto sliding_window(index_t left, index_t right) { return window(left, right); }
constexpr auto causal_sliding_window(index_t left) { return window(left, 0); }
/// i < g or j < g or |i - j| <= reach.
constexpr auto global_sliding_window(index_t g, index_t reach) { return global(g) | window(reach); }
/// doc(i) == doc(j) and floor(j / block) <= floor(i / block).
constexpr auto block_causal_document(document_offsets offsets, index_t block = 1024) {
    return document(offsets) & block_causal(block);
}

}  // namespace patterns

/// Longformer [16]: |i - j| <= reach dilation in steps of the dilation, or a global token on either side. For a language
/// model & causal{}. Global rows have projections of their own there, which is another call.
constexpr auto longformer(index_t reach, index_t dilation, std::span<const index_t> global_positions) {
    return dilated(reach, dilation) | global_tokens(global_positions);
}
constexpr auto longformer(index_t reach, std::span<const index_t> dilation_of_head,
                          std::span<const index_t> global_positions) {
    return dilated(reach, dilation_of_head) | global_tokens(global_positions);
}

/// EE-MLLM [37], visual tokens first: text sees all before it, a visual token sees only itself (so its output is its
/// value) or, where `visual_self` is false, nothing.
constexpr auto ee_mllm(index_t visual, bool visual_self = true) {
    return causal{} & (queries_from(visual) | (window(0) & queries_from(visual_self ? 0 : visual)));
}
/// The same for interleaved images: `text` marks the text positions.
constexpr auto ee_mllm(std::span<const bool> text) { return causal{} & (queries_where(text) | window(0)); }

/// SongCreator [49], queries of one stream against keys of the other, both in time order. Under none the branch gives 0.
struct song {
    using role = roles::mask;
    static constexpr bool monotone = true;
    enum class strategy { both_ways, accompaniment_to_vocals, vocals_to_accompaniment, none };
    enum class stream { vocals, accompaniment };

    strategy flow;
    stream queries;
    constexpr song(strategy s, stream of_queries) : flow(s), queries(of_queries) {}
    constexpr range keys(const where& w) const {
        const strategy all = queries == stream::vocals ? strategy::accompaniment_to_vocals
                                                       : strategy::vocals_to_accompaniment;
        return {0, flow == all ? no_key : flow == strategy::both_ways ? w.i + 1 : 0};
    }
};

/// Star Attention [59]: causal within a block and to the anchor, the first keys (default: the first block). Queries from
/// `context` on (phase 2: the prompt and what is generated) see all before them.
constexpr auto star(index_t block, index_t context = no_key, index_t anchor = -1) {
    return causal{} & (chunk(block) | first(anchor < 0 ? block : anchor) | queries_from(context));
}

/// Transformer Transducer [71]: left frames back, right frames ahead; k layers look k times as far. A negative side is
/// open; the label encoder has right = 0.
constexpr auto transducer(index_t left, index_t right) { return window(left, right); }

/// Parallel context encoding [115]: tokens [0, pieces[0]) are the sink prefix, piece p is [pieces[p], pieces[p + 1]), the
/// query part follows. A piece sees the prefix and itself, the query part everything; all causally.
constexpr auto parallel_context(std::span<const index_t> pieces) {
    return causal{} & (first(pieces.empty() ? 0 : pieces.front()) | document(pieces) |
                       queries_from(pieces.empty() ? 0 : pieces.back()));
}

}  // namespace heed::inline HEED_ABI
