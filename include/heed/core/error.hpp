// Errors: what a public entry says about bad input, before it has written anything.
//
// With exceptions, shape_error or argument_error is thrown; without (-fno-exceptions), the handler set by
// set_error_handler is called with the same sentence and must not return (the default aborts the process).
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "config.hpp"

namespace heed::inline HEED_ABI {

/// Ranks, extents, strides or aliasing that do not fit together.
struct shape_error : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

/// A parameter outside its range.
struct argument_error : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

using error_handler = void (*)(const char* message);

inline error_handler& current_error_handler() noexcept {
    static error_handler handler = nullptr;
    return handler;
}

/// Called instead of throwing where exceptions are off. The handler must not return.
inline void set_error_handler(error_handler handler) noexcept { current_error_handler() = handler; }

namespace detail {

template <class Error>
[[noreturn]] HEED_NOINLINE inline void raise(const std::string& message) {
#if defined(__cpp_exceptions)
    throw Error(message);
#else
    if (auto handler = current_error_handler()) handler(message.c_str());
    std::abort();
#endif
}

inline std::string say(const char* text) { return text; }
inline std::string say(const std::string& text) { return text; }
template <class Number>
std::string say(Number value)
    requires std::is_arithmetic_v<Number>
{
    auto text = std::to_string(value);
    if (std::is_floating_point_v<Number>) {  // 0.5, not 0.500000
        while (text.back() == '0') text.pop_back();
        if (text.back() == '.') text.pop_back();
    }
    return text;
}

}  // namespace detail

/// Throws shape_error("<op>: <parts...>") unless ok. Parts are strings and numbers.
template <class... Parts>
void require_shape(bool ok, const char* op, const Parts&... parts) {
    if (!ok) detail::raise<shape_error>((std::string(op) + ": " + ... + detail::say(parts)));
}

/// Throws argument_error("<op>: <parts...>") unless ok.
template <class... Parts>
void require_argument(bool ok, const char* op, const Parts&... parts) {
    if (!ok) detail::raise<argument_error>((std::string(op) + ": " + ... + detail::say(parts)));
}

}  // namespace heed::inline HEED_ABI
