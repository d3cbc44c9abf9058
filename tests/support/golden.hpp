// Golden cases: a folder with case.txt and .npy files, the outputs of someone else's implementation.
//
//   op NAME | attr NAME VALUE | in|out NAME TYPE SHAPE FILE | reference WHERE FROM     (SHAPE: 2x3x4, or nothing: 0-d)
// A case remembers what of it was asked for: an attribute, input or output nobody asked for is an error, never ignored.
#pragma once

#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "npy.hpp"

namespace test {

class golden_case {
public:
    explicit golden_case(const std::filesystem::path& folder) {
        std::ifstream file(folder / "case.txt");
        if (!file) throw std::runtime_error("cannot open case.txt");
        for (std::string line; std::getline(file, line);) read_line(line);
        if (op_.empty()) throw std::runtime_error("case.txt names no op");
        folder_ = folder;
    }

    const std::string& op() const { return op_; }

    /// Reads the arrays; apart from the constructor so that a case to be skipped costs nothing.
    void load() {
        for (auto* side : {&inputs_, &outputs_})
            for (auto& [name, entry] : *side) entry.data = read_entry(name, entry);
    }

    std::int64_t integer(const std::string& name, std::int64_t otherwise) {
        const auto text = attribute(name);
        return text ? parse<std::int64_t>(name, *text) : otherwise;
    }
    std::optional<double> real(const std::string& name) {
        const auto text = attribute(name);
        return text ? std::optional(parse<double>(name, *text)) : std::nullopt;
    }
    std::string text(const std::string& name, const std::string& otherwise = "") {
        return attribute(name).value_or(otherwise);
    }
    /// 0 or 1, or the same in Python's words; otherwise if it is not there, or None.
    bool flag(const std::string& name, bool otherwise) {
        const std::string said = text(name, "None");
        if (said == "None") return otherwise;
        if (said == "True" || said == "true" || said == "1") return true;
        if (said == "False" || said == "false" || said == "0") return false;
        throw std::runtime_error("attribute " + name + " is " + said + ", neither true nor false");
    }
    /// Takes attributes that are no numbers and no words of Python for what they are, remarks on how to read the case.
    void take_remarks() {
        for (const auto& [name, said] : attributes_) {
            double number = 0;
            const auto [end, error] = std::from_chars(said.data(), said.data() + said.size(), number);
            const bool is_number = error == std::errc{} && end == said.data() + said.size();
            if (!is_number && said != "True" && said != "False" && said != "true" && said != "false" && said != "None")
                read_.insert("attr " + name);
        }
    }
    bool has(const std::string& attribute_name) const { return attributes_.count(attribute_name) > 0; }

    /// nullptr if the case has none.
    const array* input(const std::string& name) { return find(inputs_, name, "in "); }
    const array* output(const std::string& name) { return find(outputs_, name, "out "); }
    const array& needed(const std::string& name) {
        const array* a = input(name);
        if (!a) throw std::runtime_error("input " + name + " is missing");
        return *a;
    }

    /// Throws if the case says something that was never asked for.
    void require_all_read() const {
        std::string rest;
        for (const auto& [name, text] : attributes_)
            if (!read_.count("attr " + name)) rest += " attr " + name;
        for (const auto& [name, entry] : inputs_)
            if (!read_.count("in " + name)) rest += " in " + name;
        for (const auto& [name, entry] : outputs_)
            if (!read_.count("out " + name)) rest += " out " + name;
        if (!rest.empty()) throw std::runtime_error(op_ + " does not know:" + rest);
    }

private:
    struct declared {
        std::string type, shape, file;
        array data;
    };

    void read_line(const std::string& line) {
        std::istringstream words(line);
        std::vector<std::string> word;
        for (std::string w; words >> w;) word.push_back(w);
        if (word.empty() || word[0][0] == '#' || word[0] == "reference") return;
        const auto fail = [&] { throw std::runtime_error("cannot read the line: " + line); };
        if (word[0] == "op" && word.size() == 2 && op_.empty()) {
            op_ = word[1];
        } else if (word[0] == "attr" && word.size() >= 3) {
            std::string text = word[2];
            for (std::size_t w = 3; w < word.size(); ++w) text += " " + word[w];
            if (!attributes_.emplace(word[1], text).second) fail();
        } else if ((word[0] == "in" || word[0] == "out") && (word.size() == 4 || word.size() == 5)) {
            auto& side = word[0] == "in" ? inputs_ : outputs_;
            if (!side.emplace(word[1], declared{word[2], word.size() == 5 ? word[3] : "", word.back(), {}}).second)
                fail();
        } else {
            fail();
        }
    }

    array read_entry(const std::string& name, const declared& e) const {
        array a = read_npy((folder_ / e.file).string());
        if (e.type == "bfloat16" && a.type == "uint16") a.type = e.type;
        std::string shape;
        for (index_t extent : a.shape) shape += (shape.empty() ? "" : "x") + std::to_string(extent);
        const bool scalar = a.shape.empty() && e.shape.find_first_of("0123456789") == std::string::npos;
        if (a.type != e.type || (shape != e.shape && !scalar))
            throw std::runtime_error(name + " is declared " + e.type + " " + e.shape + ", its file holds " + a.type +
                                     " " + shape);
        return a;
    }

    std::optional<std::string> attribute(const std::string& name) {
        read_.insert("attr " + name);
        const auto at = attributes_.find(name);
        return at == attributes_.end() ? std::nullopt : std::optional(at->second);
    }

    const array* find(const std::map<std::string, declared>& side, const std::string& name, const char* kind) {
        read_.insert(kind + name);
        const auto at = side.find(name);
        return at == side.end() ? nullptr : &at->second.data;
    }

    template <class Number>
    static Number parse(const std::string& name, const std::string& text) {
        Number value{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc{} || end != text.data() + text.size())
            throw std::runtime_error("attribute " + name + " is " + text + ", not a number of its kind");
        return value;
    }

    std::filesystem::path folder_;
    std::string op_;
    std::map<std::string, std::string> attributes_;
    std::map<std::string, declared> inputs_, outputs_;
    std::set<std::string> read_;
};

}  // namespace test
