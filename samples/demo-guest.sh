#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Usage: demo-guest.sh 1|2 MODULE    (in a guest of scripts/demo, which runs part 1, reboots and runs part 2)
#
# The two parts of `make demo`: with the real commands, each shown before it runs.

set -eu

part=$1 module=$2
files=/tmp/files

step() { printf '\n== %s\n' "$*"; }
run() { echo "# $*"; "$@"; }
fail() { echo "demo: $*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "$3: $1 is not $2"; }
differ() { [ "$1" != "$2" ] || fail "$3: it is $1 still"; }
checksum() { (cd "$files" && sha256sum ./*.txt | sha256sum | cut -c1-16); }
write() { for n in 1 2 3; do yes "$1 $n" | head -c 2M >"$files/$n.txt"; done; sync; }
# the checksum of the files on a volume or snapshot, on its own mount
files_of() {
	mount -o ro "$1" "$files" || fail "cannot mount $1"
	checksum
	umount "$files"
}
uses() { cat "/sys/module/$1/refcnt"; }
# A snapshot table is used by the target, which is dm-snapshot's, and by the store, which is whose it is.
owner() {
	dd if=/dev/zero of=/tmp/a bs=1M count=2 status=none
	cp /tmp/a /tmp/b
	a=$(losetup -f --show /tmp/a) b=$(losetup -f --show /tmp/b)
	before=$(uses dm_snapshot)
	dmsetup create whose --table "0 4096 snapshot $a $b P 8" || fail "no snapshot can be made"
	case $(($(uses dm_snapshot) - before)) in
	1) echo dm_snap_persistent ;;
	2) echo dm_snapshot ;;
	esac
	dmsetup remove whose
	losetup -d "$a"
	losetup -d "$b"
}

mkdir -p "$files"
modprobe loop
run modprobe dm-snapshot

if [ "$part" = 1 ]; then
	step "The kernel's own store has the name P. Our module takes it over."
	echo "P belongs to $(owner)"
	run insmod "$module"
	dmesg | sed -n 's/^.*\(persistent snapshot: took\)/\1/p'
	same "$(owner)" dm_snap_persistent "the owner of P"
	echo "P belongs to dm_snap_persistent"

	step "A volume group on the two disks, and a file system with known content on a logical volume."
	run vgcreate -q -y demo "$DISK_ONE" "$DISK_TWO"
	run lvcreate -q -y -L 48M -n data demo
	run mkfs.ext4 -q /dev/demo/data
	run mount /dev/demo/data "$files"
	write "the old content"
	old=$(checksum)
	echo "checksum of the files: $old"

	step "A snapshot of the mounted file system, then new content on the volume."
	run lvcreate -q -y -s -L 32M -n snap demo/data
	same "$(uses dm_snap_persistent)" 1 "the snapshots in our store"
	write "new content, on the volume only"
	new=$(checksum)
	run umount "$files"
	differ "$new" "$old" "the new content"
	snap=$(files_of /dev/demo/snap)
	same "$snap" "$old" "the snapshot"
	echo "checksums: volume $new, snapshot $snap"

	step "What LVM and device-mapper say of it."
	run lvs -o lv_name,lv_attr,lv_size,origin,snap_percent demo
	run dmsetup status demo-snap
	run dmsetup table demo-snap
	printf '%s %s\n' "$old" "$new" >/tmp/sums
	# the next boot has to know
	run lvchange -q --addtag "old-$old" --addtag "new-$new" demo/data

	step "Deactivated. The module would not have gone before."
	! rmmod dm_snap_persistent 2>/dev/null || fail "the module went while a snapshot was alive"
	run vgchange -q -an demo
	run rmmod dm_snap_persistent
	exit
fi

run insmod "$module"
step "After the reboot the volume group is activated, and the snapshot is what it was."
run vgchange -q -ay demo
same "$(uses dm_snap_persistent)" 1 "the snapshots in our store"
tags=$(lvs --noheadings -o lv_tags demo/data | tr ',' '\n' | tr -d ' ')
old=$(echo "$tags" | sed -n 's/^old-//p') new=$(echo "$tags" | sed -n 's/^new-//p')
case "$old-$new" in -* | *-) fail "the checksums did not survive" ;; esac
volume=$(files_of /dev/demo/data) snap=$(files_of /dev/demo/snap)
same "$volume" "$new" "the volume after the reboot"
same "$snap" "$old" "the snapshot after the reboot"
echo "checksums: volume $volume, snapshot $snap"

step "Merged back: the volume has the old content again."
run lvconvert -y -i 1 --merge demo/snap
volume=$(files_of /dev/demo/data)
same "$volume" "$old" "the volume after the merge"
same "$(lvs --noheadings -o lv_name demo | tr -d ' \n')" data "the volumes that are left"
echo "checksum: volume $volume"

step "A snapshot that is too small becomes invalid when it is full; the volume lives on."
run lvcreate -q -y -s -L 4M -n small demo/data
run mount /dev/demo/data "$files"
write "more than the small snapshot can keep"
volume=$(checksum)
run umount "$files"
run lvs -o lv_name,lv_attr,origin,snap_percent demo
run dmsetup status demo-small
same "$(dmsetup status demo-small | cut -d' ' -f4-)" Invalid "the small snapshot"
same "$(files_of /dev/demo/data)" "$volume" "the volume after the overflow"
echo "checksum: volume $volume, as written"
run vgchange -q -an demo
run vgremove -q -ff -y demo

step "The module goes, and the kernel's own store has its name back."
run rmmod dm_snap_persistent
same "$(owner)" dm_snapshot "the owner of P"
echo "P belongs to dm_snapshot"
