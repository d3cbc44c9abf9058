// A step of diverse beam search [109]: eight beams over pages they share attend, one choice among eight times 32000
// words, pages follow the beams. In four groups of two against one of eight, which is beam search.
#include "decoder.hpp"

namespace bench {
namespace {

constexpr index_t H = decode_step::H, G = decode_step::G, D = decode_step::D, B = 8, words = 32000, page = 16;

/// B beams that have read the same tokens, and what a model says of their next words.
class search {
    std::shared_ptr<const prompt> prompt_;
    std::shared_ptr<answer> answer_;
    threads pool_;
    index_t groups_;
    paged_cache<float> cache_;
    aligned_vector<float> o_, log_p_;
    std::vector<beam> alive_;

    template <class T>
    static view<T> for_each_beam(const view<T>& x) {
        return {x.data, {B, x.shape[1], x.shape[2], x.shape[3]}, {0, x.strides[1], x.strides[2], x.strides[3]}};
    }

public:
    search(const decode_step& s, std::shared_ptr<const prompt> x, std::shared_ptr<answer> to, index_t groups)
        : prompt_(std::move(x)),
          answer_(std::move(to)),
          pool_(s.threads),
          groups_(groups),
          cache_({1, G, D, D}, page, ceil_div(s.M, page) + 2 * B),
          o_(static_cast<std::size_t>(B * H * D)),
          log_p_(static_cast<std::size_t>(B * words)),
          alive_(static_cast<std::size_t>(B)) {
        const range before{0, s.M - 1};
        cache_.append(0, slice(prompt_->k, 2, before), slice(prompt_->v, 2, before));
        for (index_t b = 1; b < B; ++b) cache_.fork(0);
        const counter_random random(109);
        for (std::size_t i = 0; i < log_p_.size(); ++i) log_p_[i] = static_cast<float>(random.normal(i) - 10);
    }

    /// Reads the last token, chooses, and takes the token back.
    void step() {
        const index_t M = prompt_->k.shape[2];
        const auto last = [&](const view<float>& x) { return for_each_beam(slice(x, 2, {M - 1, M})); };
        cache_.append(last(prompt_->k), last(prompt_->v));
        const auto o = heads(o_.data(), {B, H, 1, D});
        attention(for_each_beam(prompt_->q), cache_, o, on{pool_});
        alive_ = diverse_beam_step(dense(log_p_.data(), {B, words}), alive_, groups_, 0.5);
        cache_.reorder(parents_of(alive_));
        cache_.truncate(1);
        std::copy_n(&o(B - 1, 0, 0, 0), H * D, answer_->o().data);
    }
};

template <index_t Groups>
prepared searching(const decode_step& s) {
    const auto x = prompt_of(s.M);
    const auto to = std::make_shared<answer>();
    const auto run = std::make_shared<search>(s, x, to, Groups);
    return judged(
        *x, *to, [=] { run->step(); }, plain<float>(B * s.M));
}

}  // namespace

std::vector<decoder> beam_decoders() {
    return {{"beams_in_1_group", "f32", "heed", searching<1>}, {"beams_in_4_groups", "f32", "heed", searching<4>}};
}

}  // namespace bench
