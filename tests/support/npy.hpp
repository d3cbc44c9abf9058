// Reads .npy files, format 1.0 to 3.0: any shape (0-d and zero-sized too), C or Fortran order, either byte order; bool,
// signed and unsigned integers, float16/32/64, and bfloat16 (stored as two raw bytes). The elements come out in C
// order.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <heed/core/half.hpp>
#include <heed/core/range.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace test {

using namespace heed;

/// An array as it stood in the file. `type` is numpy's name: bool, int8 ... uint64, float16, float32, float64,
/// bfloat16.
struct array {
    std::string type;
    std::vector<index_t> shape;
    std::vector<std::byte> bytes;

    index_t size() const {
        index_t n = 1;
        for (index_t extent : shape) n *= extent;
        return n;
    }
    index_t rank() const { return static_cast<index_t>(shape.size()); }

    /// The elements as To; exact where To can hold them.
    template <class To>
    std::vector<To> as() const {
        std::vector<To> out(static_cast<std::size_t>(size()));
        visit([&](auto* from) {
            for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<To>(from[i]);
        });
        return out;
    }
    /// Calls f with a pointer to the elements, in their own type.
    template <class F>
    void visit(F&& f) const {
        const auto as_type = [&]<class T>(T*) { f(reinterpret_cast<const T*>(bytes.data())); };
        if (type == "bool" || type == "uint8") return as_type(static_cast<std::uint8_t*>(nullptr));
        if (type == "int8") return as_type(static_cast<std::int8_t*>(nullptr));
        if (type == "int16") return as_type(static_cast<std::int16_t*>(nullptr));
        if (type == "uint16") return as_type(static_cast<std::uint16_t*>(nullptr));
        if (type == "int32") return as_type(static_cast<std::int32_t*>(nullptr));
        if (type == "uint32") return as_type(static_cast<std::uint32_t*>(nullptr));
        if (type == "int64") return as_type(static_cast<std::int64_t*>(nullptr));
        if (type == "uint64") return as_type(static_cast<std::uint64_t*>(nullptr));
        if (type == "float16") return as_type(static_cast<f16*>(nullptr));
        if (type == "bfloat16") return as_type(static_cast<bf16*>(nullptr));
        if (type == "float32") return as_type(static_cast<float*>(nullptr));
        if (type == "float64") return as_type(static_cast<double*>(nullptr));
        throw std::runtime_error("npy: no reader for type " + type);
    }
};

namespace detail {

/// The text after 'key': in the header's dictionary.
inline std::string npy_field(const std::string& header, const std::string& key) {
    const auto at = header.find("'" + key + "':");
    if (at == std::string::npos) throw std::runtime_error("npy: the header has no " + key);
    const auto first = header.find_first_not_of(' ', at + key.size() + 3);
    if (first == std::string::npos) throw std::runtime_error("npy: the header ends after " + key);
    const char open = header[first];
    const auto last = open == '('    ? header.find(')', first)
                      : open == '\'' ? header.find('\'', first + 1)
                                     : header.find_first_of(",}", first);
    if (last == std::string::npos) throw std::runtime_error("npy: the header's " + key + " does not end");
    const bool quoted = open == '(' || open == '\'';
    return header.substr(first + (quoted ? 1 : 0), last - first - (quoted ? 1 : 0));
}

inline std::vector<index_t> npy_shape(const std::string& text) {
    std::vector<index_t> shape;
    for (std::size_t at = 0; at < text.size();) {
        if (text[at] == ' ' || text[at] == ',') {
            ++at;
            continue;
        }
        std::size_t used = 0;
        shape.push_back(static_cast<index_t>(std::stoll(text.substr(at), &used)));
        at += used;
    }
    return shape;
}

inline std::string npy_type(const std::string& descr) {
    const std::string kind =
        !descr.empty() && std::string("<>|=").find(descr[0]) != std::string::npos ? descr.substr(1) : descr;
    if (kind == "b1") return "bool";
    if (kind == "V2" || kind == "bfloat16") return "bfloat16";
    const bool number = kind.size() == 2 && std::string("1248").find(kind[1]) != std::string::npos;
    const std::string bits = number ? std::to_string(8 * (kind[1] - '0')) : "";
    if (number && kind[0] == 'i') return "int" + bits;
    if (number && kind[0] == 'u') return "uint" + bits;
    if (number && kind[0] == 'f' && bits != "8") return "float" + bits;
    throw std::runtime_error("npy: no reader for type " + descr);
}

inline void reverse_bytes(std::vector<std::byte>& bytes, std::size_t width) {
    for (std::size_t i = 0; i + width <= bytes.size(); i += width)
        std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(i),
                     bytes.begin() + static_cast<std::ptrdiff_t>(i + width));
}

/// From Fortran order to C order.
inline std::vector<std::byte> to_c_order(const array& a, std::size_t width) {
    std::vector<std::byte> out(a.bytes.size());
    std::vector<index_t> at(a.shape.size(), 0);
    for (std::size_t to = 0; to < out.size(); to += width) {
        index_t from = 0, step = 1;
        for (std::size_t axis = 0; axis < at.size(); ++axis) {
            from += at[axis] * step;
            step *= a.shape[axis];
        }
        std::memcpy(&out[to], &a.bytes[static_cast<std::size_t>(from) * width], width);
        for (std::size_t axis = at.size(); axis-- > 0;) {
            if (++at[axis] < a.shape[axis]) break;
            at[axis] = 0;
        }
    }
    return out;
}

}  // namespace detail

inline array read_npy(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("npy: cannot open " + path);
    std::string head(8, '\0');
    if (!file.read(head.data(), 8) || head.compare(0, 6, "\x93NUMPY") != 0)
        throw std::runtime_error("npy: not an .npy file: " + path);
    const int version = head[6];
    if (version < 1 || version > 3) throw std::runtime_error("npy: format version " + std::to_string(version));
    unsigned char length[4] = {};
    file.read(reinterpret_cast<char*>(length), version == 1 ? 2 : 4);
    std::string header(length[0] | length[1] << 8 | length[2] << 16 | static_cast<std::size_t>(length[3]) << 24, '\0');
    if (!file.read(header.data(), static_cast<std::streamsize>(header.size())))
        throw std::runtime_error("npy: the header of " + path + " is cut off");

    array a;
    const std::string descr = detail::npy_field(header, "descr");
    a.type = detail::npy_type(descr);
    a.shape = detail::npy_shape(detail::npy_field(header, "shape"));
    std::size_t width = 0;
    a.visit([&](auto* element) { width = sizeof(*element); });
    a.bytes.resize(static_cast<std::size_t>(a.size()) * width);
    if (!a.bytes.empty() &&
        !file.read(reinterpret_cast<char*>(a.bytes.data()), static_cast<std::streamsize>(a.bytes.size())))
        throw std::runtime_error("npy: the data of " + path + " is cut off");
    if (file.peek() != std::ifstream::traits_type::eof())
        throw std::runtime_error("npy: " + path + " has bytes after its data");
    const bool little = std::endian::native == std::endian::little;
    if (descr[0] == (little ? '>' : '<')) detail::reverse_bytes(a.bytes, width);
    if (detail::npy_field(header, "fortran_order").substr(0, 4) == "True") a.bytes = detail::to_c_order(a, width);
    return a;
}

}  // namespace test
