#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Usage: dmsetup-snapshot.sh ORIGIN COW    (as root; what is on the two block devices is lost)
#
# A persistent snapshot with nothing but dmsetup: made, read, taken down, brought up again, merged back.

set -eu

[ $# -eq 2 ] || { sed -n '3,5s/^# \{0,1\}//p' "$0"; exit 2; }
origin=$1 cow=$2
size=$(blockdev --getsz "$origin")

step() { printf '\n== %s\n' "$*"; }
run() { echo "# $*"; "$@"; }
# reads and writes around the page cache, to see what the devices hold
checksum() { dd if="$1" bs=1M iflag=direct status=none | sha256sum | cut -c1-16; }
write() { yes "$2" | dd of="$1" bs=1M count=2 iflag=fullblock oflag=direct conv=notrunc status=none; }

for device in walk-snap walk-origin; do
	! dmsetup info "$device" >/dev/null 2>&1 || { echo "$device exists already: remove it first" >&2; exit 1; }
done
clean_up() {
	for device in walk-snap walk-origin; do
		! dmsetup info "$device" >/dev/null 2>&1 || dmsetup remove "$device"
	done
}
trap clean_up EXIT

step "The origin gets some content."
write "$origin" "the old content"
before=$(checksum "$origin")
echo "sha256 $before…"

step "A COW device whose first sector is zero holds no snapshot yet: the store writes a header for a new one."
run dd if=/dev/zero of="$cow" bs=4096 count=1 oflag=direct status=none

step "The snapshot: P means persistent, 8 sectors are the chunk size (4 KiB)."
run dmsetup create walk-snap --table "0 $size snapshot $origin $cow P 8"

step "From now on the origin is written through snapshot-origin only, which copies a chunk before it is overwritten."
run dmsetup create walk-origin --table "0 $size snapshot-origin $origin"

step "The origin is overwritten; the snapshot reads what was there before."
write /dev/mapper/walk-origin "the new content"
after=$(checksum /dev/mapper/walk-origin)
[ "$after" != "$before" ]
[ "$(checksum /dev/mapper/walk-snap)" = "$before" ]
echo "origin $after…, snapshot $before…"

step "How full is it: sectors allocated/total, and how many of them are metadata."
run dmsetup status walk-snap
run dmsetup table walk-snap

step "It is persistent: taken down and brought up again, the snapshot is the same. First down is the origin."
run dmsetup remove walk-origin
run dmsetup remove walk-snap
run dmsetup create walk-snap --table "0 $size snapshot $origin $cow P 8"
run dmsetup create walk-origin --table "0 $size snapshot-origin $origin"
[ "$(checksum /dev/mapper/walk-snap)" = "$before" ]
[ "$(checksum /dev/mapper/walk-origin)" = "$after" ]
run dmsetup status walk-snap

step "The snapshot is merged back: the origin's device becomes the merge, and reads as the snapshot at once."
run dmsetup remove walk-snap
run dmsetup reload walk-origin --table "0 $size snapshot-merge $origin $cow P 8"
run dmsetup suspend walk-origin
run dmsetup resume walk-origin
[ "$(checksum /dev/mapper/walk-origin)" = "$before" ]

step "The merge is done when nothing but metadata is allocated."
for second in $(seq 60); do
	# 0 SIZE snapshot-merge ALLOCATED/TOTAL METADATA
	IFS=' /' read -r _ _ _ allocated _ metadata <<-END
		$(dmsetup status walk-origin)
	END
	[ "$allocated" != "$metadata" ] || break
	[ "$second" -lt 60 ] || { echo "the merge does not end" >&2; exit 1; }
	sleep 1
done
run dmsetup status walk-origin
run dmsetup remove walk-origin
[ "$(checksum "$origin")" = "$before" ]
echo
echo "The origin is what it was: sha256 $before…"
