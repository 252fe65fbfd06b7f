# SPDX-License-Identifier: GPL-2.0-only
# The project's own targets; what kbuild reads is in Kbuild.

PREFIX ?= /usr/local
running := /lib/modules/$(shell uname -r)/build
# stays empty when another kernel is meant, or the running one's headers have no Rust metadata
KDIR ?= $(if $(KERNEL),,$(if $(wildcard $(running)/rust/libkernel.rmeta),$(running)))
export KERNEL FLAVOUR CORE TIME SEED OPERATIONS POINTS MODULE KEY CERT SIGN DESTDIR INSTALL_MOD_PATH PERCENT

.PHONY: all modules module install uninstall sign matrix deb check check-signed crash demo tools install-tools fuzz coverage soak bench-tools bench clean cache-clean help
.DEFAULT_GOAL := all

all: modules ## build for KDIR=, by default the running kernel if it has Rust metadata

modules: ## the same
	@scripts/check-kdir '$(KDIR)'
	@mkdir -p 'build/$(release)'
	$(MAKE) -C '$(KDIR)' M='$(CURDIR)' MO='$(CURDIR)/build/$(release)' modules

release = $(shell cat '$(KDIR)/include/config/kernel.release' 2>/dev/null)

module: ## build for a stock Debian kernel in the cache, KERNEL=7.3 (default: the newest of trixie-backports), into build/RELEASE/
	@scripts/module

install: ## install what is built for KDIR= (or KERNEL=RELEASE, or the running one): MODULE=store or targets, KEY= CERT= or SIGN=1, DESTDIR=
	@scripts/install-module install '$(KDIR)'

uninstall: ## remove exactly what install put there
	@scripts/install-module uninstall '$(KDIR)'

sign: ## sign what is built with KEY= CERT=, or with the machine owner's key (SIGN=1)
	@scripts/install-module sign '$(KDIR)'

matrix: ## a quick set of tests on every supported kernel, or on those of KERNEL=; the result is a table
	@scripts/matrix

deb: ## Debian packages in build/deb: the module for the kernels of KERNEL= (several names), the tools, documentation
	@scripts/deb

check: ## every check and test, on stock kernels in virtual machines, or FLAVOUR=uml, debug (KASAN, lockdep, …); CORE=c or rust alone
	@scripts/check

check-signed: ## signed modules on a kernel with module.sig_enforce=1 and their key in its keyring, which is built for that
	@tests/scripts/signed

crash: ## crash the machine at POINTS=10600 points of recorded workloads, and look at what is left (CORE=, SEED=)
	@scripts/crash

demo: ## a snapshot of a file system that survives a reboot, shown in a virtual machine
	@scripts/demo

tools: ## the userspace tools (snap_check, ...), into build/tools/release/
	@scripts/tools

install-tools: tools ## install the tools below PREFIX=/usr/local (DESTDIR=): links, manual pages, completions
	@scripts/install-tools '$(DESTDIR)$(PREFIX)'

fuzz: ## fuzz every parser of outside input, TIME=60 seconds each
	@scripts/in-root -- env CARGO_TARGET_DIR='$(CURDIR)/build/fuzz' tests/fuzz/run $(TIME)

coverage: ## which lines of the tools their tests run; fails where a file has less than PERCENT=85 percent
	@scripts/coverage

soak: ## random lives of LVM's snapshots against a model, TIME=30m, FLAVOUR=, CORE=, SEED= repeats a run
	@scripts/soak

bench-tools: ## the speed of the tools, beside cp, qemu-img, dd and thin-provisioning-tools
	@scripts/bench-tools

bench: ## the performance of the kernel's snapshots and ours, side by side (QUICK=1)
	@scripts/bench

clean: ## remove what was built here
	rm -rf build

cache-clean: ## remove the cache too: build roots, kernels, guests
	@scripts/cache-clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile
