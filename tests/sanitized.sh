#!/usr/bin/env bash
# Runs the emulated kernels, called from JAX, under AddressSanitizer and UBSan; the arguments are pytest's. `make
# test-sanitized` builds the modules. SANITIZED chooses tests, in the syntax of pytest's -k.
set -euo pipefail
cd "$(dirname "$0")/.."
export JAX_CONVGRAD_EMULATOR_DIR="$PWD/build/sanitized/cuda_emulator" JAX_CONVGRAD_EMULATOR_SEED=20231

# AddressSanitizer looks up the functions that throw exceptions when it is loaded, and the python executable has none,
# so libstdc++ is preloaded too. Reports go to a file, since pytest captures stderr and the abort that follows ends it.
report="$PWD/build/sanitized/report"
rm -f "$report".*
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" \
ASAN_OPTIONS=detect_leaks=0:log_path="$report" UBSAN_OPTIONS=print_stacktrace=1:log_path="$report" \
    pytest -k "${SANITIZED:-emulated}" "$@" \
    tests/layers/test_{gradients,pooling,zero_sizes}.py tests/kernels/test_{handlers,cuda_grouped}.py ||
    { cat "$report".* 2> /dev/null; exit 1; }
