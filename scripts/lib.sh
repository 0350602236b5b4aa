# shellcheck shell=bash disable=SC2034
# What the scripts share. Source it: . "$(dirname "$0")/lib.sh"
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc)

# Everything a script says goes to stderr: stdout belongs to the program it runs.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# A compiler cache turns a rebuild after a fresh clone into seconds. Objects are shared between
# clones and build folders, so paths are made relative.
use_compiler_cache() {
  command -v ccache >/dev/null || return 0
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
}
use_compiler_cache
