// Golden cases written by tests, for lines of a case.txt that those of tests/data do not have.
#pragma once

#include <gtest/gtest.h>

#include <fstream>

#include "../support/random.hpp"
#include "../support/scratch_folder.hpp"
#include "replay.hpp"

namespace conformance {

/// A folder with a case, tokens before heads or heads before tokens.
class written_case {
public:
    explicit written_case(const std::string& op) : text_("op " + op + "\n") {}
    written_case(const std::string& op, bool tokens_first, bool layout_told = true) : written_case(op) {
        tokens_first_ = tokens_first;
        if (layout_told) said("layout", tokens_first ? "BTHD" : "BHTD");
    }
    written_case& said(const std::string& name, const std::string& value) {
        text_ += "attr " + name + " " + value + "\n";
        return *this;
    }
    /// (B, H, N, D), without the last axis if `numbers`.
    written_case& rows(const char* side, const std::string& name, const test::tensor<float>& x, bool numbers = false) {
        const auto [B, H, N, D] = x.shape();
        std::vector<float> data;
        for (index_t b = 0; b < B; ++b)
            for (index_t i = 0; i < (tokens_first_ ? N : H); ++i)
                for (index_t j = 0; j < (tokens_first_ ? H : N); ++j)
                    for (index_t d = 0; d < D; ++d) data.push_back(tokens_first_ ? x(b, j, i, d) : x(b, i, j, d));
        std::vector<index_t> shape{B, tokens_first_ ? N : H, tokens_first_ ? H : N};
        if (!numbers) shape.push_back(D);
        return file(side, name, "float32", "<f4", shape, data);
    }
    template <class T>
    written_case& state(const char* side, const std::string& name, const test::tensor<T>& x) {
        const auto [B, H, D, E] = x.shape();
        return typed(side, name, {B, H, D, E}, in_order(x));
    }
    /// (B, N, H D), as ONNX has it.
    template <class T>
    written_case& flat(const char* side, const std::string& name, const test::tensor<T>& x) {
        const auto [B, H, N, D] = x.shape();
        return typed(side, name, {B, N, H * D}, in_order(test::copied(permuted(x.v()))));
    }
    template <class S>
    written_case& file(const char* side, const std::string& name, const std::string& type, const std::string& descr,
                       const std::vector<index_t>& shape, const std::vector<S>& data) {
        std::string tuple, product;
        for (index_t extent : shape) {
            tuple += std::to_string(extent) + ",";
            product += (product.empty() ? "" : "x") + std::to_string(extent);
        }
        const std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + tuple + "), }\n";
        const std::string path = std::string(side) + "_" + name + ".npy";
        std::ofstream to(folder_ / path, std::ios::binary);
        const auto size = static_cast<unsigned>(header.size());
        to << "\x93NUMPY\x01" << '\0' << static_cast<char>(size & 255) << static_cast<char>(size >> 8) << header;
        to.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size() * sizeof(S)));
        text_ += std::string(side) + " " + name + " " + type + " " + product + " " + path + "\n";
        return *this;
    }
    /// Replays the case by kernels and by definitions; both must hold, and know every line. Or both must say why not.
    void replay(double (*by)(golden_case&, engine), const std::string& refusal = "") {
        std::ofstream(folder_ / "case.txt") << text_;
        for (engine one : {engine::heed, engine::reference}) {
            SCOPED_TRACE(one == engine::heed ? "heed" : "ref");
            golden_case c(std::filesystem::path(folder_ / "."));
            c.load();
            std::string said;
            try {
                by(c, one);
                c.require_all_read();
            } catch (const std::exception& e) {
                said = e.what();
            }
            EXPECT_EQ(said, refusal);
        }
    }

private:
    template <class T>
    written_case& typed(const char* side, const std::string& name, const std::vector<index_t>& shape,
                        const std::vector<T>& data) {
        constexpr bool half = sizeof(T) == 2;
        return file(side, name, half ? "float16" : "float32", half ? "<f2" : "<f4", shape, data);
    }
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

    test::scratch_folder folder_;
    bool tokens_first_ = true;
    std::string text_;
};

}  // namespace conformance
