# shellcheck shell=bash
# What scripts/run and scripts/test share. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # read by those who source this file
target=${CARGO_TARGET_DIR:-$root/target}
# The oldest compiler that the workspace takes, from its own manifest.
rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

say() { printf '%s\n' "$*" >&2; }
fail() { say "${0##*/}: $*"; exit 1; }

# Absolute form of a path that may not exist yet.
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$PWD/$1" ;; esac; }

# npm_file PACKAGE VERSION FILE: fetches one file of an npm package with its licence into target/npm, once, and prints its path. npm
# compares what it fetched with the registry's own digest.
npm_file() {
    local package=$1 version=$2 file=$3
    local folder=$target/npm/$package/$version
    if [[ ! -f $folder/$file ]]; then
        command -v npm >/dev/null || fail "npm is needed to fetch $package: install it and run this again"
        mkdir -p "$target/npm"
        local work
        work=$(mktemp -d "$target/npm/.XXXXXX")
        (cd "$work" && npm pack --silent "$package@$version" >name) || fail "npm pack $package@$version failed"
        tar -xzf "$work/$(tail -n 1 "$work/name")" -C "$work" --wildcards "package/$file" 'package/*LICENSE*' ||
            fail "unpacking $package"
        rm -rf "$folder"
        mkdir -p "${folder%/*}"
        mv "$work/package" "$folder"
        rm -rf "$work"
    fi
    echo "$folder/$file"
}

# need_cargo [COMPONENT…]: a Rust toolchain that is new enough, with these components (rustfmt, clippy).
need_cargo() {
    local install="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    # A shell that is no login shell may not have rustup's directory on its PATH.
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null || fail "cargo is missing. This installs it:
  $install"
    local found
    found=$(cargo --version | cut -d' ' -f2) || fail "cargo does not run. This installs one that does:
  $install"
    [[ $(printf '%s\n' "$rust_version" "$found" | sort -V | head -n 1) == "$rust_version" ]] ||
        fail "cargo is $found, $rust_version or newer is needed. With rustup: rustup update stable. Without it, this installs it:
  $install"
    local component
    for component; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 ||
            fail "cargo has no $component. With rustup: rustup component add $component"
    done
}

# need_packages PACKAGE[:COMMAND…]…: installs by name what is missing, with apt-get. A package also counts as there when one
# of its commands is on the PATH, wherever it came from. Asks nothing.
need_packages() {
    local spec package missing=()
    for spec; do
        package=${spec%%:*}
        [[ $spec == *:* ]] && any_command "${spec#*:}" && continue
        installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        say "there is no apt-get here; if what follows fails, install the counterparts of: ${missing[*]}"
        return 0
    fi
    local install="apt-get install -y --no-install-recommends ${missing[*]}"
    [[ $(id -u) -eq 0 ]] || fail "these packages are missing, and only root may install them. Run this once:
  sudo apt-get update && sudo $install"
    say "installing ${missing[*]}"
    {
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q && $install
    } </dev/null >&2 || fail "apt-get could not install ${missing[*]}; its own words are above"
}

# Whether dpkg says that a package is installed (not only known, or removed but configured).
installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Whether one of these commands, separated by colons, is on the PATH.
any_command() {
    local name names
    IFS=: read -ra names <<<"$1"
    for name in "${names[@]}"; do
        command -v "$name" >/dev/null && return 0
    done
    return 1
}

# What compiling needs besides cargo: a C and C++ compiler, and librdkafka's build with TLS. It includes a header of curl's even
# where it is built without curl (rdkafka_conf.c of 2.12.1).
# shellcheck disable=SC2034 # used by those who source this file
build_packages=(build-essential:c++ cmake:cmake pkg-config:pkg-config:pkgconf libcurl4-openssl-dev libssl-dev zlib1g-dev)

# until_true SECONDS WHAT COMMAND…: repeats the command until it succeeds; fails, naming WHAT, when the time is over.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || { say "waited in vain for $what"; return 1; }
        sleep 0.2
    done
}
