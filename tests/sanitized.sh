#!/usr/bin/env bash
# The emulated kernels called from JAX under AddressSanitizer and UBSan; arguments are pytest's. `make test-sanitized`
# builds what this runs. SANITIZED chooses among the tests, in the words of pytest's -k.
set -euo pipefail
cd "$(dirname "$0")/.."
export JAX_CONVGRAD_EMULATOR_DIR="$PWD/build/sanitized/cuda_emulator" JAX_CONVGRAD_EMULATOR_SEED=20231

# AddressSanitizer looks up the functions that throw exceptions when it is loaded, and the python executable has none:
# libstdc++ comes along. A report goes to a file, since pytest keeps stderr and does not survive the abort that follows.
report="$PWD/build/sanitized/report"
rm -f "$report".*
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" \
ASAN_OPTIONS=detect_leaks=0:log_path="$report" UBSAN_OPTIONS=print_stacktrace=1:log_path="$report" \
    pytest -k "${SANITIZED:-emulated}" "$@" \
    tests/layers/test_{gradients,pooling,zero_sizes}.py tests/kernels/test_{handlers,cuda_grouped}.py ||
    { cat "$report".* 2> /dev/null; exit 1; }
