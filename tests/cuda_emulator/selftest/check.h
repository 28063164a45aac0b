// A test is a function that throws when a check fails. Checks print both sides.
#pragma once

#include <cuda_runtime.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace selftest {

using Test = std::function<void()>;
// Tests run by default; demonstrations run only by name: they print a speed, or end in a sanitizer's report.
std::map<std::string, Test>& tests();
std::map<std::string, Test>& demonstrations();

struct Register {
  Register(std::map<std::string, Test>& where, const char* name, Test body) { where.emplace(name, body); }
};

#define TEST(name)                                                                 \
  static void name();                                                              \
  static const selftest::Register register_##name(selftest::tests(), #name, name); \
  static void name()
#define DEMONSTRATION(name)                                                                 \
  static void name();                                                                       \
  static const selftest::Register register_##name(selftest::demonstrations(), #name, name); \
  static void name()

template <typename A, typename B>
void check_equal(const A& a, const B& b, const std::string& what) {
  if (a == b) return;
  std::ostringstream message;
  message << what << ": " << a << " is not " << b;
  throw std::runtime_error(message.str());
}

inline void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

template <typename... Arguments>
void run(Arguments... arguments) {
  const cudaError_t error = launch(arguments...);
  check(error == cudaSuccess, std::string("launch failed: ") + cudaGetErrorString(error));
}

// Expects the launch to fail while it runs, with these words in its message.
template <typename... Arguments>
void check_fails(const std::string& words, Arguments... arguments) {
  const cudaError_t error = launch(arguments...);
  check_equal(static_cast<int>(error), static_cast<int>(cudaErrorLaunchFailure),
              "error for \"" + words + "\"");
  const std::string message = cudaGetErrorString(error);
  check(message.find(words) != std::string::npos, "\"" + words + "\" is not in \"" + message + "\"");
}

class WithSeed {
 public:
  explicit WithSeed(int seed) {
    if (const char* before = std::getenv(kName)) before_ = before;
    setenv(kName, std::to_string(seed).c_str(), 1);
  }
  ~WithSeed() { before_.empty() ? unsetenv(kName) : setenv(kName, before_.c_str(), 1); }
  WithSeed(const WithSeed&) = delete;
  WithSeed& operator=(const WithSeed&) = delete;

 private:
  static constexpr const char* kName = "JAX_CONVGRAD_EMULATOR_SEED";
  std::string before_;
};

}  // namespace selftest
