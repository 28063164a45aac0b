// selftest            runs every test
// selftest NAME...    runs these tests or demonstrations
// selftest --list     names the tests
#include <cstdio>
#include <cstring>
#include <exception>

#include "check.h"

namespace selftest {

std::map<std::string, Test>& tests() {
  static std::map<std::string, Test> map;
  return map;
}

std::map<std::string, Test>& demonstrations() {
  static std::map<std::string, Test> map;
  return map;
}

static bool passes(const std::string& name, const Test& test) {
  try {
    test();
    std::printf("passed  %s\n", name.c_str());
    return true;
  } catch (const std::exception& failure) {
    std::printf("FAILED  %s: %s\n", name.c_str(), failure.what());
    return false;
  }
}

}  // namespace selftest

int main(int count, char** arguments) {
  using namespace selftest;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int failures = 0;
  if (count == 2 && !std::strcmp(arguments[1], "--list")) {
    for (const auto& entry : tests()) std::printf("%s\n", entry.first.c_str());
    return 0;
  }
  if (count == 1)
    for (const auto& entry : tests()) failures += !passes(entry.first, entry.second);
  for (int i = 1; i < count; ++i) {
    auto found = tests().find(arguments[i]);
    if (found == tests().end()) found = demonstrations().find(arguments[i]);
    if (found == demonstrations().end()) {
      std::printf("FAILED  no test is called %s\n", arguments[i]);
      return 1;
    }
    failures += !passes(found->first, found->second);
  }
  return failures != 0;
}
