#!/usr/bin/env bash
# Installs what Krait needs from the distribution's packages; does nothing when all is there.
#
#   scripts/setup.sh [build] [test]      purposes in dependencies.txt; default: build test
#
# Made for Debian 12, Debian 13 and Ubuntu 24.04, as root or through sudo.
. "$(dirname "$0")/lib.sh"
export DEBIAN_FRONTEND=noninteractive
umask 022

# Prints the lines "package minimum" of dependencies.txt for the given purposes.
wanted() {
  awk -v purposes=" $* " '!/^#/ && NF && index(purposes, " " $1 " ") { print $2, ($3 ? $3 : 0) }' \
    "$root/scripts/dependencies.txt"
}

installed_version() {
  dpkg-query -W -f='${db:Status-Status} ${Version}\n' "$1" 2>/dev/null |
    awk '$1 == "installed" { print $2; exit }'
}

candidate_version() {
  apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

# at_least VERSION MINIMUM; epochs (1:14.0) order only a distribution's own packages, so drop them.
at_least() { [[ -n $1 ]] && dpkg --compare-versions "${1#*:}" ge "$2"; }

# Prints the packages that are absent or too old.
missing() {
  local package minimum
  wanted "$@" | while read -r package minimum; do
    at_least "$(installed_version "$package")" "$minimum" || echo "$package"
  done
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo --preserve-env=DEBIAN_FRONTEND "$@"
  else
    fail "run scripts/setup.sh as root, or install sudo: it has to install ${packages[*]}"
  fi
}

# Debian 12 ships xsimd 8.1. The header-only package of Debian 13 works there as it is, so take it
# from the same mirror, pinned so that nothing else ever comes from Debian 13.
add_trixie_for_xsimd() {
  local uri keyring
  uri=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' \
    'Created-By: Packages' 'Component: main' |
    awk '$1 == "bookworm" { print $2; exit }')
  [[ -n $uri ]] || fail "apt has no source for bookworm/main from which to derive one for Debian 13"
  # The keyring that vouches for the mirror: as in the system's own sources, else Debian's.
  keyring=$(sed -nE 's/.*[Ss]igned-[Bb]y[:=] *(\/[^] ,]*).*/\1/p' /etc/apt/sources.list \
    /etc/apt/sources.list.d/debian.{sources,list} 2>/dev/null | head -n 1 || true)
  say "adding Debian 13 as a source of libxsimd-dev and xtl-dev, and of nothing else"
  printf '%s\n' "# Written by scripts/setup.sh of Krait; preferences.d/krait-xsimd limits it." \
    'Types: deb' "URIs: $uri" 'Suites: trixie' 'Components: main' \
    "Signed-By: ${keyring:-/usr/share/keyrings/debian-archive-keyring.gpg}" |
    as_root tee /etc/apt/sources.list.d/krait-xsimd.sources >/dev/null
  printf '%s\n' '# Written by scripts/setup.sh of Krait: only two packages come from Debian 13.' \
    'Package: *' 'Pin: release n=trixie' 'Pin-Priority: -1' '' \
    'Package: libxsimd-dev xtl-dev' 'Pin: release n=trixie' 'Pin-Priority: 990' |
    as_root tee /etc/apt/preferences.d/krait-xsimd >/dev/null
  as_root apt-get update -q >&2
}

(($#)) && purposes=("$@") || purposes=(build test)
if ! command -v dpkg-query >/dev/null; then
  say "this is no Debian or Ubuntu: if something is missing, install what dependencies.txt lists"
  exit 0
fi
mapfile -t packages < <(missing "${purposes[@]}")
((${#packages[@]})) || exit 0

say "installing ${packages[*]}"
# One broken source that has nothing to do with Krait must not stop this; a lack shows below.
as_root apt-get update -q >&2 || say "apt-get update failed for some source; going on"
if [[ " ${packages[*]} " == *" libxsimd-dev "* ]] &&
  ! at_least "$(candidate_version libxsimd-dev)" 12; then
  [[ $(. /etc/os-release && echo "${VERSION_CODENAME:-}") == bookworm ]] ||
    fail "libxsimd-dev 12 or newer is needed, and this system offers" \
      "$(candidate_version libxsimd-dev): install a newer package (it holds headers only)"
  add_trixie_for_xsimd
fi
as_root apt-get install -q -y --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 \
  "${packages[@]}" >&2

mapfile -t packages < <(missing "${purposes[@]}")
((${#packages[@]} == 0)) ||
  fail "still absent or too old: ${packages[*]} (see scripts/dependencies.txt)"
