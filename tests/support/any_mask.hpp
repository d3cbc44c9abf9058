// A mask behind virtual calls, so that one instantiation of the engine serves every mask under test.
#pragma once

#include <memory>

#include <heed/policy/mask.hpp>

namespace test {

using namespace heed;

class any_mask {
public:
    using role = roles::mask;

    template <class M>
        requires(!std::same_as<std::remove_cvref_t<M>, any_mask>)
    any_mask(M mask) : self_(std::make_shared<model<M>>(std::move(mask))) {}

    bool allows(const where& w) const { return self_->allows(w); }
    index_t next(const rows& r, index_t j) const { return self_->next(r, j); }
    bool full(const rows& r, range keys) const { return self_->full(r, keys); }
    lane_bits bits(const rows& r, index_t j, int n) const { return self_->bits(r, j, n); }
    void check(const char* op, const extents_of_scores& s) const { self_->check(op, s); }

private:
    struct base {
        virtual ~base() = default;
        virtual bool allows(const where&) const = 0;
        virtual index_t next(const rows&, index_t) const = 0;
        virtual bool full(const rows&, range) const = 0;
        virtual lane_bits bits(const rows&, index_t, int) const = 0;
        virtual void check(const char*, const extents_of_scores&) const = 0;
    };
    template <class M>
    struct model : base {
        M mask;
        explicit model(M m) : mask(std::move(m)) {}
        bool allows(const where& w) const override { return heed::detail::allows(mask, w); }
        index_t next(const rows& r, index_t j) const override { return heed::detail::next(mask, r, j); }
        bool full(const rows& r, range keys) const override { return heed::detail::full(mask, r, keys); }
        lane_bits bits(const rows& r, index_t j, int n) const override { return heed::detail::bits(mask, r, j, n); }
        void check(const char* op, const extents_of_scores& s) const override {
            heed::detail::check_policy(mask, op, s);
        }
    };
    std::shared_ptr<const base> self_;
};

}  // namespace test
