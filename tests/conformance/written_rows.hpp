// Golden cases of attention's kin that tests write, replayed by kernels and by definitions.
#pragma once

#include "../support/random.hpp"
#include "../support/written_case.hpp"
#include "replay.hpp"

namespace conformance {

/// A folder with a case, tokens before heads or heads before tokens.
class written_rows : public test::written_case {
public:
    explicit written_rows(const std::string& op) : test::written_case(op) {}
    written_rows(const std::string& op, bool tokens_first, bool layout_told = true) : written_rows(op) {
        tokens_first_ = tokens_first;
        if (layout_told) said("layout", tokens_first ? "BTHD" : "BHTD");
    }
    written_rows& said(const std::string& name, const std::string& value) {
        test::written_case::said(name, value);
        return *this;
    }
    template <class T>
    written_rows& file(const char* side, const std::string& name, const std::vector<index_t>& shape,
                       const std::vector<T>& data) {
        test::written_case::file(side, name, shape, data);
        return *this;
    }
    /// (B, H, N, D), without the last axis if `numbers`.
    written_rows& rows(const char* side, const std::string& name, const test::tensor<float>& x, bool numbers = false) {
        const auto [B, H, N, D] = x.shape();
        std::vector<float> data;
        for (index_t b = 0; b < B; ++b)
            for (index_t i = 0; i < (tokens_first_ ? N : H); ++i)
                for (index_t j = 0; j < (tokens_first_ ? H : N); ++j)
                    for (index_t d = 0; d < D; ++d) data.push_back(tokens_first_ ? x(b, j, i, d) : x(b, i, j, d));
        std::vector<index_t> shape{B, tokens_first_ ? N : H, tokens_first_ ? H : N};
        if (!numbers) shape.push_back(D);
        return file(side, name, shape, data);
    }
    template <class T>
    written_rows& state(const char* side, const std::string& name, const test::tensor<T>& x) {
        const auto [B, H, D, E] = x.shape();
        return file(side, name, {B, H, D, E}, in_order(x));
    }
    /// (B, N, H D), as ONNX has it.
    template <class T>
    written_rows& flat(const char* side, const std::string& name, const test::tensor<T>& x) {
        const auto [B, H, N, D] = x.shape();
        return file(side, name, {B, N, H * D}, in_order(test::copied(permuted(x.v()))));
    }
    /// Replays the case by kernels and by definitions; both must hold, and know every line. Or both must say why not.
    void replay(double (*by)(golden_case&, engine), const std::string& refusal = "") {
        for (engine one : {engine::heed, engine::reference}) {
            SCOPED_TRACE(one == engine::heed ? "heed" : "ref");
            expect([&](golden_case& c) { by(c, one); }, refusal);
        }
    }

private:
    template <class T>
    static std::vector<T> in_order(const test::tensor<T>& x) {
        std::vector<T> data;
        x.each([&](index_t b, index_t h, index_t n, index_t d) { data.push_back(x(b, h, n, d)); });
        return data;
    }
    /// Tokens before heads.
    template <class T>
    static view<T> permuted(view<T> x) {
        std::swap(x.shape[1], x.shape[2]);
        std::swap(x.strides[1], x.strides[2]);
        return x;
    }

    bool tokens_first_ = true;
};

}  // namespace conformance
