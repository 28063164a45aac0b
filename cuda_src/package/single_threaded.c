// What libstdc++.a of a newer system asks its glibc, and an older glibc does not know: atomics are always needed.
char __libc_single_threaded = 0;
