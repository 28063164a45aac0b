// Facts that a plan reports about a call, by name, for people to read; jax_convgrad/instruments prints them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace convgrad {

using Fact = std::variant<bool, int64_t, std::string, std::vector<int64_t>>;
using Facts = std::vector<std::pair<std::string, Fact>>;

}  // namespace convgrad
