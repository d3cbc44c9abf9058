// -fno-exceptions: a bad call reaches the handler with a full sentence, and nothing has been written.
#include <cstdlib>
#include <cstring>
#include <heed/heed.hpp>

namespace {

float x[2 * 3 * 80], y[2 * 3 * 80];

[[noreturn]] void handler(const char* message) {
    for (float value : y)
        if (value != 7.0f) std::_Exit(2);
    const bool clear = std::strstr(message, "attention") && std::strstr(message, "64") && std::strstr(message, "80");
    std::_Exit(clear ? 0 : 3);
}

}  // namespace

int main() {
    for (float& value : y) value = 7.0f;
    heed::set_error_handler(handler);
    heed::attention(heed::heads(x, {1, 2, 3, 80}), heed::heads(x, {1, 2, 3, 64}), heed::heads(x, {1, 2, 3, 80}),
                    heed::heads(y, {1, 2, 3, 80}));
    return 1;  // the shapes do not fit, so the call must not return
}
