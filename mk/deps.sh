#!/bin/bash
# Sees to what building and testing need: Debian packages by apt-get when root, and a word about the Rust toolchain.
# Costs nothing when all is there.
set -euo pipefail

packages=(gcc g++ binutils clang libclang1 llvm libbpf-dev libelf-dev zlib1g-dev libc6-dev linux-libc-dev m4 make iproute2 iputils-ping ethtool procps pkg-config valgrind)
rust_least=1.95

missing=()
if command -v dpkg-query >/dev/null; then
	for package in "${packages[@]}"; do
		status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
		[[ $status == installed ]] || missing+=("$package")
	done
else
	echo "deps: this is no Debian; please see to these, or what they are called here: ${packages[*]}"
fi

if ((${#missing[@]})); then
	if ((EUID)); then
		echo "deps: missing: ${missing[*]}" >&2
		echo "deps: not root, so nothing was installed; run: sudo apt-get install ${missing[*]}" >&2
		exit 1
	fi
	echo "deps: installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	install() { apt-get -qq -y --no-install-recommends install "${missing[@]}" </dev/null >/dev/null; }
	install 2>/dev/null || { apt-get -qq update && install; }
fi

have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true)
if [[ -z $have ]]; then
	problem="there is no cargo"
elif [[ $(printf '%s\n' "$rust_least" "$have" | sort -V | head -1) != "$rust_least" ]]; then
	problem="cargo $have is too old"
else
	exit 0
fi
echo "deps: $problem; Rust $rust_least or newer is needed." >&2
echo "deps: install rustup from the Rust language's own site, then run: rustup toolchain install stable" >&2
exit 1
