// The tensors of a problem, of its storage type: random q, k, v, an output, and what the mask says as bytes.
#pragma once

#include <vector>

#include "problem.hpp"

namespace bench {

/// Dense (1, H, N, D) memory of a storage type known at run time.
class tensor {
public:
    tensor(dtype type, const extents<4>& shape)
        : shape_(shape), memory_(with_type(type, [&](auto x) {
              return static_cast<std::size_t>(heads(static_cast<char*>(nullptr), shape).size()) * sizeof x;
          })) {}

    template <class T>
    view<T> as() const {
        return heads(reinterpret_cast<T*>(memory_.data()), shape_);
    }
    std::size_t bytes() const { return memory_.size(); }

private:
    extents<4> shape_;
    arena memory_;
};

struct operands {
    tensor q, k, v, o;
    any_mask mask;
    std::vector<float> sinks;
    std::vector<std::uint8_t> dense_mask;  // (N, M), 1 is visible; empty until asked for, and for `full`

    explicit operands(const problem& p);
    /// The mask of contestants that know no other.
    const std::uint8_t* dense(const problem& p);
};

}  // namespace bench
