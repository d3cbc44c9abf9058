// Any mask behind one type, so that one compiled attention() serves all masks of the suite.
//
// Only the planning of tiles asks the mask, not the hot loop, so the calls through pointers cost nothing that shows.
#pragma once

#include <heed/heed.hpp>
#include <memory>

namespace bench {

using namespace heed;

class any_mask {
public:
    using role = roles::mask;

    template <mask_policy M>
        requires(!std::same_as<M, any_mask> && !detail::additive_mask<M>)
    any_mask(M mask, std::shared_ptr<const void> data = {})  // data: what the mask's spans look at
        : mask_(std::make_shared<const M>(std::move(mask))), data_(std::move(data)), calls_(&calls_of<M>) {}

    bool allows(const where& w) const { return calls_->allows(mask_.get(), w); }
    index_t next(const rows& r, index_t j) const { return calls_->next(mask_.get(), r, j); }
    bool full(const rows& r, range keys) const { return calls_->full(mask_.get(), r, keys); }
    lane_bits bits(const rows& r, index_t j, int n) const { return calls_->bits(mask_.get(), r, j, n); }
    void check(const char* op, const extents_of_scores& s) const { calls_->check(mask_.get(), op, s); }

private:
    struct calls {
        bool (*allows)(const void*, const where&);
        index_t (*next)(const void*, const rows&, index_t);
        bool (*full)(const void*, const rows&, range);
        lane_bits (*bits)(const void*, const rows&, index_t, int);
        void (*check)(const void*, const char*, const extents_of_scores&);
    };
    template <class M>
    static const M& as(const void* mask) {
        return *static_cast<const M*>(mask);
    }
    template <class M>
    static constexpr calls calls_of{
        [](const void* m, const where& w) { return detail::allows(as<M>(m), w); },
        [](const void* m, const rows& r, index_t j) { return detail::next(as<M>(m), r, j); },
        [](const void* m, const rows& r, range keys) { return detail::full(as<M>(m), r, keys); },
        [](const void* m, const rows& r, index_t j, int n) { return detail::bits(as<M>(m), r, j, n); },
        [](const void* m, const char* op, const extents_of_scores& s) { detail::check_policy(as<M>(m), op, s); },
    };

    std::shared_ptr<const void> mask_, data_;
    const calls* calls_;
};

}  // namespace bench
