// Errors: what a public entry says about bad input, before it has written anything.
//
// With exceptions, shape_error or argument_error is thrown; without (-fno-exceptions), the handler set by
// set_error_handler is called with the same sentence and must not return (the default aborts the process).
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

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

/// A part of a sentence: text or a number. One type, so that a check costs its caller no code beyond the arguments.
class part {
public:
    part(const char* text) : text_(text) {}
    part(const std::string& text) : text_(text.c_str()) {}
    template <class Number>
        requires std::is_arithmetic_v<Number>
    part(Number value) : kind_(std::is_floating_point_v<Number> ? real : std::is_signed_v<Number> ? whole : natural) {
        if constexpr (std::is_floating_point_v<Number>)
            real_ = static_cast<double>(value);
        else if constexpr (std::is_signed_v<Number>)
            whole_ = value;
        else
            natural_ = value;
    }

    std::string said() const {
        if (kind_ == words) return text_;
        if (kind_ == whole) return std::to_string(whole_);
        if (kind_ == natural) return std::to_string(natural_);
        auto text = std::to_string(real_);  // 0.5, not 0.500000
        while (text.back() == '0') text.pop_back();
        if (text.back() == '.') text.pop_back();
        return text;
    }

private:
    enum { words, whole, natural, real } kind_ = words;
    union {
        const char* text_;
        long long whole_;
        unsigned long long natural_;
        double real_;
    };
};

template <class Error>
[[noreturn]] HEED_NOINLINE inline void raise_sentence(const char* op, std::initializer_list<part> parts) {
    std::string message = std::string(op) + ": ";
    for (const part& p : parts) message += p.said();
    raise<Error>(message);
}

}  // namespace detail

/// Throws shape_error("<op>: <parts...>") unless ok. Parts are strings and numbers.
template <class... Parts>
HEED_INLINE void require_shape(bool ok, const char* op, const Parts&... parts) {
    if (!ok) [[unlikely]]
        detail::raise_sentence<shape_error>(op, {detail::part(parts)...});
}

/// Throws argument_error("<op>: <parts...>") unless ok.
template <class... Parts>
HEED_INLINE void require_argument(bool ok, const char* op, const Parts&... parts) {
    if (!ok) [[unlikely]]
        detail::raise_sentence<argument_error>(op, {detail::part(parts)...});
}

}  // namespace heed::inline HEED_ABI
