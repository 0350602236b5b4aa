#!/usr/bin/env bash
# Installs Krait and builds this folder's project against the result, by CMake and by pkg-config.
#
#   check.sh static|shared       KRAIT_BINARY_DIR: the build of Krait that runs this test
. "$(dirname "$0")/../../scripts/lib.sh"
kind=$1
here=$root/tests/consumer
work=$KRAIT_BINARY_DIR/consumer/$kind
prefix=$work/prefix
rm -rf "$prefix" "$work/user"

if [[ $kind == static ]]; then
  library=$KRAIT_BINARY_DIR
else
  # Beside the other build, where relative paths, and so the compiler cache's entries, are the same.
  library=$KRAIT_BINARY_DIR-shared
  cmake --preset dev -S "$root" -B "$library" -DBUILD_SHARED_LIBS=ON -DKRAIT_CUDA=OFF \
    -DKRAIT_TESTS=OFF -DKRAIT_BENCH=OFF -DKRAIT_EXAMPLES=OFF
  cmake --build "$library"
fi
cmake --install "$library" --prefix "$prefix"
extra=$(find "$prefix/include" -type f -not -path "$prefix/include/krait/*.h*")
[[ -z $extra ]] || fail "installed besides include/krait: $extra"
if [[ -e $prefix/bin/krait ]]; then
  "$prefix/bin/krait" --help >/dev/null || fail "the installed krait command does not run"
fi

say "find_package(krait), $kind"
cmake -G Ninja -S "$here" -B "$work/user" -DCMAKE_PREFIX_PATH="$prefix"
cmake --build "$work/user"
"$work/user/consumer" "$root/assets/classics-mamba"

say "pkg-config, $kind"
pc=$(find "$prefix" -name krait.pc)
export PKG_CONFIG_PATH=${pc%/*}
libdir=$(pkg-config --variable=libdir krait)
read -ra flags < <(pkg-config --cflags --libs krait)
"${CXX:-c++}" -std=c++20 -Wall -Wextra -Wpedantic -Werror "$here/main.cpp" -o "$work/user/by_pkg_config" \
  "${flags[@]}" -Wl,-rpath,"$libdir"
"$work/user/by_pkg_config" "$root/assets/classics-mamba"

if [[ $kind == shared ]]; then
  # Not through grep -q: it ends at the first match, and pipefail counts ldd's broken pipe.
  [[ $(ldd "$work/user/consumer") == *libkrait.so* ]] || fail "the consumer is not linked to libkrait.so"
  # A static library would have to be linked with these; a shared one must not ask its user to.
  [[ ! ${flags[*]} =~ pcre2|utf8proc|xxhash ]] || fail "krait.pc asks for private libraries"
fi
