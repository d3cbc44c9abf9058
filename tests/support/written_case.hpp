// Golden cases that a test writes, in a folder of their own (golden.hpp has the format).
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <type_traits>

#include "golden.hpp"
#include "scratch_folder.hpp"

namespace test {

class written_case {
public:
    explicit written_case(const std::string& op) : text_("op " + op + "\n") {}

    written_case& said(const std::string& name, const std::string& value) {
        text_ += "attr " + name + " " + value + "\n";
        return *this;
    }
    /// An array of signed integers, or of floats of 2, 4 or 8 bytes; side: "in" or "out".
    template <class S>
    written_case& file(const char* side, const std::string& name, const std::vector<index_t>& shape,
                       const std::vector<S>& data) {
        std::string tuple, product;
        for (index_t extent : shape) {
            tuple += std::to_string(extent) + ",";
            product += (product.empty() ? "" : "x") + std::to_string(extent);
        }
        const std::string name_of_type = (std::is_integral_v<S> ? "int" : "float") + std::to_string(8 * sizeof(S));
        const std::string descr = name_of_type.substr(0, 1) + std::to_string(sizeof(S));
        const std::string header = "{'descr': '<" + descr + "', 'fortran_order': False, 'shape': (" + tuple + "), }\n";
        const std::string path = std::string(side) + "_" + name + ".npy";
        std::ofstream to(folder_ / path, std::ios::binary);
        const auto size = static_cast<unsigned>(header.size());
        to << "\x93NUMPY\x01" << '\0' << static_cast<char>(size & 255) << static_cast<char>(size >> 8) << header;
        to.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size() * sizeof(S)));
        text_ += std::string(side) + " " + name + " " + name_of_type + " " + product + " " + path + "\n";
        return *this;
    }
    /// replay(case) must hold and know every line, or say why not.
    template <class Replay>
    void expect(const Replay& replay, const std::string& refusal = "") {
        std::ofstream(folder_ / "case.txt") << text_;
        std::string said;
        try {
            golden_case c(std::filesystem::path(folder_ / "."));
            c.load();
            replay(c);
            c.require_all_read();
        } catch (const std::exception& e) {
            said = e.what();
        }
        EXPECT_EQ(said, refusal);
    }

private:
    scratch_folder folder_;
    std::string text_;
};

}  // namespace test
