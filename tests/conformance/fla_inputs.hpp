// Cases of flash-linear-attention's naive code: operands by their names, in the layout the case says. All of it
// computes in float32.
#pragma once

#include "recurrence_call.hpp"

namespace conformance {

using names = std::initializer_list<const char*>;

/// The inputs of a case by any of their names; a rank of 3 is one channel.
class fla_inputs {
public:
    explicit fla_inputs(golden_case& g) : g_(g) {
        const std::string said = g.text("layout", "");
        require(said == "BHTD" || said == "BTHD", "the layout is '" + said + "'");
        tokens_first_ = said == "BTHD";
        for (const char* prose : {"gate", "gamma", "decay", "recurrence"}) g.text(prose, "");
    }
    golden_case& of() { return g_; }
    bool tokens_first() const { return tokens_first_; }

    operand<float> maybe(names any) {
        const array* a = find(any);
        return a ? laid_out(*a) : operand<float>{};
    }
    operand<float> operator()(names any) {
        const array* a = find(any);
        require(a, "input " + std::string(*any.begin()) + " is missing");
        return laid_out(*a);
    }
    /// (B, H, D, E), whatever the layout of tokens.
    operand<float> state(names any) {
        const array* a = find(any);
        return a ? operand_of<float>(*a, 0, *any.begin()) : operand<float>{};
    }
    /// The scale the case says; where it says none, 1 / sqrt(K) or 1.
    double scale(bool scaled, index_t K) {
        const std::string said = g_.text("scale", scaled ? "1/sqrt(K)" : "1");
        return said == "1/sqrt(K)" ? 1 / std::sqrt(static_cast<double>(K)) : g_.real("scale").value_or(1);
    }
    void qkv(recurrence_call<float>& c, bool scaled = true) {
        c.q = (*this)({"q", "r"});
        c.k = (*this)({"k"});
        c.v = (*this)({"v"});
        c.scale = scale(scaled, c.q.at.shape[3]);
    }
    /// An output against its golden one, if there is one; a state is (B, H, D, E) in every layout.
    double compare(const char* name, const operand<float>& got, bool state = false) {
        const array* want = g_.output(name);
        if (!want) return 0;
        const auto [B, H, N, D] = got.at.shape;
        const bool heads_first = state || !tokens_first_;
        const std::vector<index_t> shape{B, heads_first ? H : N, heads_first ? N : H, D};
        return conformance::compare(name, shape, got.data, *want, tolerance_of(want->type));
    }

private:
    const array* find(names any) {
        for (const char* name : any)
            if (const array* a = g_.input(name)) return a;
        return nullptr;
    }
    operand<float> laid_out(const array& a) const {
        require(a.rank() == 3 || a.rank() == 4, "an input has rank " + std::to_string(a.rank()));
        operand<float> x{a.as<float>(), {}};
        const extents<4> shape{a.shape[0], a.shape[1], a.shape[2], a.rank() == 4 ? a.shape[3] : 1};
        x.at = tokens_first_ ? tokens(x.data.data(), shape) : heads(x.data.data(), shape);
        return x;
    }

    golden_case& g_;
    bool tokens_first_ = false;
};

}  // namespace conformance
