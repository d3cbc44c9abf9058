// A call that must throw, and what its sentence must say.
#pragma once

#include <gtest/gtest.h>

#include <string>

namespace test {

template <class Error, class F>
void refuses(F&& f, const std::string& words) {
    try {
        f();
        ADD_FAILURE() << "no error with: " << words;
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
}

}  // namespace test
