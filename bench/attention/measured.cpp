#include "measured.hpp"

#include <cstring>

#include "check.hpp"

namespace bench {

measurement measured(const problem& what, const contestant& by) {
    const std::string name = what.name();
    return {name + "/" + by.name, what.threads, [what, name, &by] {
                const auto x = at_hand(name, [&] { return operands(what); });
                const double area = what.area();
                const job call = by.prepare(what, *x);
                const std::span<std::byte> output(x->o.as<std::byte>().data, x->o.bytes());
                std::memset(output.data(), 0xff, output.size());
                call();
                return prepared{.run = [x, call] { call(); },
                                .wrong = difference_from_definition(what, *x),
                                .flops = what.flops(area),
                                .bytes = what.bytes(),
                                .in_double = what.type == dtype::f64,
                                .columns = {{"area", area}},
                                .output = output};
            }};
}

}  // namespace bench
