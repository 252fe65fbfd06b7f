# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by the bash scripts beside it: the cache, its locks, progress on stderr, the build root.

set -euo pipefail
shopt -s inherit_errexit
umask 022

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${DMSP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dm-snap-persistent}
mkdir -p "$cache/log" "$cache/lock" "$cache/cargo"
cache=$(cd "$cache" && pwd -P)

say() { echo "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# options NAMES ARGUMENTS...: an argument --NAME VALUE or --NAME=VALUE sets the variable NAME, where NAMES has it; a
# NAME! takes no value and becomes 1. `rest` is what follows the options, without a -- before it.
rest=()
options() {
	local known=" $1 " name
	shift
	while [[ ${1-} == --?* ]]; do
		name=${1#--}
		name=${name%%=*}
		case $known in
		*" $name! "*) printf -v "$name" 1 ;;
		*" $name "*)
			if [[ $1 == *=* ]]; then
				printf -v "$name" %s "${1#*=}"
			else
				[[ $# -gt 1 ]] || die "$1: no value"
				printf -v "$name" %s "$2"
				shift
			fi
			;;
		*) die "unknown argument $1; see the top of $0" ;;
		esac
		shift
	done
	[[ ${1-} != -- ]] || shift
	rest=("$@")
}

# step TEXT LOGNAME COMMAND...: runs a long command, its output in a log that is named when it fails.
# No `if` around the command: that would switch `set -e` off inside shell functions.
step_text='' step_log=''
step() {
	step_text=$1 step_log=$cache/log/$2.log
	local start=$SECONDS
	shift 2
	say "$step_text…"
	"$@" >"$step_log" 2>&1
	say "$step_text: $((SECONDS - start)) s"
	step_log=''
}

on_exit() {
	local status=$?
	if [[ $status -ne 0 && -n $step_log ]]; then
		tail -n 15 "$step_log" >&2
		say "${0##*/}: $step_text: failed; the whole log is $step_log"
	fi
}
trap on_exit EXIT

# lock NAME: one run at a time makes a cache entry; held until the script ends. An entry is built in
# ENTRY.new and renamed, so what exists is whole; what an interrupted run left is in the way of nobody.
lock() {
	local fd
	exec {fd}>"$cache/lock/$1"
	flock -n "$fd" || { say "waiting for another run that makes $1…"; flock "$fd"; }
}

# key TEXT...: a short name for what an entry is built from
key() { printf '%s\n' "$@" | sha256sum | cut -c1-12; }

need() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || die "$tool is missing: run scripts/host-deps as root"
	done
}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The Debian mirror that this machine already uses.
mirror() {
	local id='' codename=''
	if [[ -n ${DEBIAN_MIRROR:-} ]]; then
		echo "$DEBIAN_MIRROR"
		return
	fi
	if [[ -r /etc/os-release ]]; then
		id=$(. /etc/os-release && echo "${ID:-}")
		codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	fi
	if [[ $id == debian ]]; then
		# shellcheck disable=SC2016 # apt's variables
		apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' |
			awk -v c="$codename" '$2 == "main" && ($1 == c || $1 ~ /^(stable|testing|sid|unstable)$/) {
				print $3; found = 1; exit } END { exit !found }' && return
	fi
	die "no Debian mirror in this machine's apt configuration: set DEBIAN_MIRROR to one"
}

# What Debian's kernels are taken from: an apt state of our own, this machine's is left alone.
apt=$cache/apt
# shellcheck disable=SC2034,SC2054 # for those that source this
apt_options=(-q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
	-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
	-o Dir::State::lists="$apt/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$apt"
	-o APT::Architecture=amd64 -o APT::Architectures=amd64,arm64
	-o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3
	-o APT::Sandbox::User=root -o APT::Update::Error-Mode=any)

# debootstrap NAME SUITE DIR PACKAGES [MMDEBSTRAP OPTIONS...]
debootstrap() {
	local name=$1 suite=$2 dir=$3 packages=$4 uri sources=()
	shift 4
	need mmdebstrap
	[[ $EUID -eq 0 ]] || die "making a Debian root needs root"
	uri=$(mirror)
	sources=("deb [signed-by=$keyring] $uri $suite main")
	[[ $suite == sid ]] || sources+=("deb [signed-by=$keyring] $uri $suite-updates main")
	# the machine's own proxies and the like hold for the root as well
	apt-config dump --format '%f "%v";%n' Acquire::http Acquire::https 2>/dev/null |
		grep -v '::User-Agent ' >"$cache/acquire.conf.$$" || true
	mv "$cache/acquire.conf.$$" "$cache/acquire.conf"
	# a mirror's copy of a suite can be past its date; what it mounts goes with it, even if it is killed
	nice unshare --mount mmdebstrap --aptopt="$cache/acquire.conf" --aptopt='Acquire::Check-Valid-Until "false"' \
		--aptopt='Acquire::Retries "3"' --aptopt='Acquire::Languages "none"' \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$packages" "$@" "$suite" "$dir" "${sources[@]}"
}

# binding_places ROOT: where in_root binds this machine's own files
binding_places() {
	rm -f "$1/etc/resolv.conf"
	touch "$1/etc/resolv.conf" "$1/etc/hosts"
}

# in_root ROOT BWRAP-OPTIONS... -- COMMAND...: the root read-only; the project, the cache and the network
# of this machine; a private /tmp. The mounts end with the command.
in_root() {
	local root=$1 options=() name file
	shift
	while [[ $1 != -- ]]; do options+=("$1"); shift; done
	shift
	need bwrap
	case $project/ in /usr/* | /etc/*) die "the build root has its own $project: move the checkout elsewhere" ;; esac
	for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
		[[ -e $file && -e $root$file ]] && options+=(--ro-bind "$file" "$file")
	done
	if [[ -n ${CARGO_HOME:-} && -f $CARGO_HOME/config.toml ]]; then
		options+=(--ro-bind "$CARGO_HOME/config.toml" /root/.cargo/config.toml)
	elif [[ -f $HOME/.cargo/config.toml ]]; then
		options+=(--ro-bind "$HOME/.cargo/config.toml" /root/.cargo/config.toml)
	fi
	while read -r name; do
		case $name in
		CARGO_HOME | CARGO_TARGET_DIR) ;;
		CARGO_* | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | TERM)
			options+=(--setenv "$name" "${!name}") ;;
		esac
	done < <(compgen -e)
	bwrap --die-with-parent --unshare-pid --unshare-ipc --tmpfs / \
		--ro-bind "$root/usr" /usr --ro-bind "$root/etc" /etc \
		--symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
		--proc /proc --dev /dev --tmpfs /tmp --tmpfs /run --dir /root --clearenv \
		--bind "$cache" "$cache" --bind "$project" "$project" --bind "$cache/cargo" /root/.cargo \
		--setenv PATH /usr/sbin:/usr/bin:/sbin:/bin --setenv HOME /root --setenv LANG C.UTF-8 \
		--setenv CARGO_HOME /root/.cargo "${options[@]}" -- "$@"
}
