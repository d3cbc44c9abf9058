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
        const std::string said = g.text("layout", heads_first_in_code() ? "BHTD" : "BTHD");
        require(said == "BHTD" || said == "BTHD", "the layout is '" + said + "'");
        tokens_first_ = said == "BTHD";
        g.take_remarks();
        for (const char* hint : {"chunk_size", "output_final_state"}) g.text(hint);  // without effect on values
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
        const std::string said = g_.text("scale", "None");
        if (said == "None" ? scaled : said == "1/sqrt(K)" || said == "K**-0.5" || said == "K^-0.5")
            return 1 / std::sqrt(static_cast<double>(K));
        return said == "None" ? 1 : g_.real("scale").value();
    }
    void qkv(recurrence_call<float>& c, bool scaled = true) {
        c.q = (*this)({"q", "r"});
        c.k = (*this)({"k"});
        c.v = (*this)({"v"});
        c.scale = scale(scaled, c.q.at.shape[3]);
        for (const char* asked : {"use_qk_l2norm_in_kernel", "use_qk_l2norm"})
            if (g_.flag(asked, false)) to_unit_rows(c.q), to_unit_rows(c.k);
    }
    /// Where sequences that are packed into one row of tokens begin, and where the last ends; empty if they are not.
    std::vector<index_t> offsets() {
        for (const char* name : {"cu_seqlens", "offsets"})
            if (const array* a = g_.input(name)) return a->as<index_t>();
        return {};
    }
    /// An output against its golden one, which a state may be without; a state is (B, H, D, E) in every layout.
    double compare(names any, const operand<float>& got, bool state = false) {
        double worst = 0;
        bool found = state;
        for (const char* name : any) {
            const array* want = g_.output(name);
            if (!want) continue;
            found = true;
            const auto [B, H, N, D] = got.at.shape;
            const bool heads_first = state || !tokens_first_;
            const std::vector<index_t> shape{B, heads_first ? H : N, heads_first ? N : H, D};
            const double tolerance = tolerance_of(want->type);
            worst = std::max(worst, conformance::compare(name, shape, got.data, *want, tolerance));
        }
        require(found, "output " + std::string(*any.begin()) + " is missing");
        return worst;
    }

private:
    /// Most of the code has tokens before heads.
    bool heads_first_in_code() const {
        for (const char* op : {"abc", "based", "delta_rule", "dplr", "dplr_delta_rule", "iplr", "iplr_delta_rule",
                               "rebased", "retention", "rwkv6"})
            if (g_.op() == op) return true;
        return false;
    }
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
    /// Rows x / sqrt(sum x^2 + 1e-6), as its kernels make them.
    static void to_unit_rows(operand<float>& x) {
        const index_t D = x.at.shape[3];
        for (std::size_t row = 0; row < x.data.size(); row += static_cast<std::size_t>(D)) {
            double sum = 1e-6;
            for (std::size_t i = row; i < row + static_cast<std::size_t>(D); ++i)
                sum += static_cast<double>(x.data[i]) * static_cast<double>(x.data[i]);
            for (std::size_t i = row; i < row + static_cast<std::size_t>(D); ++i)
                x.data[i] = static_cast<float>(static_cast<double>(x.data[i]) / std::sqrt(sum));
        }
    }

    golden_case& g_;
    bool tokens_first_ = false;
};

}  // namespace conformance
