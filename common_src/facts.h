// What a plan decides about a call, for people to read: facts by name. jax_convgrad/instruments prints them.
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
