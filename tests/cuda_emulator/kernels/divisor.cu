// Tests division by multiplication, at the quotients' edges and where a factor is near its limit.
#include "check.h"
#include "cuda_src/divisor.cuh"

using namespace selftest;
using convgrad::cuda::Divisor;

TEST(divisor) {
  const int32_t most = 0x7fffffff;
  for (int32_t d = 1; d > 0; d = d < 1000 ? d + 1 : (d < most / 3 ? d * 3 - 1 : -1)) {
    const Divisor divisor(d);
    for (const int64_t q : {0, 1, 2, 3, most / d / 2, most / d - 1, most / d}) {
      for (int64_t n = q * d - 1; n <= q * d + 1; ++n) {
        if (n < 0 || n > most) continue;
        const std::string what = std::to_string(n) + " / " + std::to_string(d);
        int32_t rest = static_cast<int32_t>(n);
        check_equal(divisor.split(rest), static_cast<int32_t>(n / d), what);
        check_equal(rest, static_cast<int32_t>(n % d), what + ", the rest");
      }
    }
  }
  for (const int32_t d : {most, most - 1, 1 << 30, (1 << 30) + 1}) {
    check_equal(Divisor(d).quotient(most), most / d, "the largest by " + std::to_string(d));
    check_equal(Divisor(d).quotient(d - 1), 0, "one less than " + std::to_string(d));
  }
}
