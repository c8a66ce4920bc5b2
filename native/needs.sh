#!/usr/bin/env bash
# Says what this machine lacks to build the native pool, and how to get it; succeeds when nothing is missing.
#
#   native/needs.sh compiler [headers PYTHON] [gtest]
set -euo pipefail

CXX=${CXX:-c++}
missing=0
lacks() {
    printf 'native: %s\n' "$@" >&2
    missing=1
}
compiles() {
    "$CXX" -std=c++20 -x c++ -fsyntax-only "$@" - 2>/dev/null
}

while (($#)); do
    case $1 in
        compiler)
            compiles <<<$'#include <concepts>\n#include <span>\nint main() { return std::span<int>{}.empty() ? 0 : 1; }' ||
                lacks "no compiler for C++20 as '$CXX' (GCC 11 or Clang 14 do)." \
                    "  Debian, Ubuntu: apt-get install g++ · Fedora: dnf install gcc-c++ · or set CXX."
            ;;
        headers)
            python=$2
            shift
            include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
            [[ -e $include/Python.h ]] ||
                lacks "no Python.h for $python ($include)." \
                    "  Debian, Ubuntu: apt-get install python3-dev · Fedora: dnf install python3-devel."
            ;;
        gtest)
            compiles <<<'#include <gtest/gtest.h>' ||
                lacks "no GoogleTest, which the C++ tests are written with." \
                    "  Debian, Ubuntu: apt-get install libgtest-dev · Fedora: dnf install gtest-devel."
            ;;
        *)
            printf 'native/needs.sh: %s is not known\n' "$1" >&2
            exit 2
            ;;
    esac
    shift
done
exit "$missing"
