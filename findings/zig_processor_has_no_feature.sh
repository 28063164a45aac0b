#!/usr/bin/env bash
# A C program that zig compiles believes that the processor has no vector instructions, not even those that each
# x86-64 processor has.
#
# Versions: ziglang 0.17.1 (a clang, from PyPI), x86-64 Linux, glibc 2.36.
# Guess: __builtin_cpu_supports() answers as with gcc and clang: 1 for "sse2", which belongs to x86-64, and for "avx2" if
# the processor has it. A program that chooses among instruction sets when it runs takes the widest.
# Seen: it is 0 for each name, without a warning and even after __builtin_cpu_init(). The same source compiled by
# gcc prints 1 for "sse2". So such a program, or a wheel with such kernels, is right but runs on its slowest code.
# CPUID itself, as in <cpuid.h>, answers correctly under both.
set -euo pipefail

[ "$(uname -sm)" = "Linux x86_64" ] || { echo "this needs x86-64 Linux" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1

cat > "$folder/features.c" <<'C'
#include <cpuid.h>
#include <stdio.h>
int main(void) {
  unsigned a, b, c, d = 0;
  __builtin_cpu_init();
  __get_cpuid(1, &a, &b, &c, &d);
  printf("__builtin_cpu_supports(\"sse2\"): %d, CPUID: %u\n", !!__builtin_cpu_supports("sse2"), d >> 26 & 1);
}
C
export ZIG_GLOBAL_CACHE_DIR="$folder/cache" ZIG_LOCAL_CACHE_DIR="$folder/cache"
"$folder/venv/bin/python" -m ziglang cc -O1 "$folder/features.c" -o "$folder/by_zig"
seen=$("$folder/by_zig")
echo "zig: $seen"
[ "$seen" = '__builtin_cpu_supports("sse2"): 0, CPUID: 1' ]
if command -v gcc > /dev/null; then
    gcc -O1 "$folder/features.c" -o "$folder/by_gcc"
    echo "gcc: $("$folder/by_gcc")"
    [ "$("$folder/by_gcc")" = '__builtin_cpu_supports("sse2"): 1, CPUID: 1' ]
fi
echo "as stated"
