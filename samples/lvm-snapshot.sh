#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Usage: lvm-snapshot.sh DISK DISK    (as root; what is on the two block devices is lost)
#
# Snapshots as LVM makes them: of a mounted file system, grown while in use, full, merged back.

set -eu

[ $# -eq 2 ] || { sed -n '3,5s/^# \{0,1\}//p' "$0"; exit 2; }
mounted=$(mktemp -d)
made=''

step() { printf '\n== %s\n' "$*"; }
run() { echo "# $*"; "$@"; }
checksum() { (cd "$mounted" && sha256sum ./* | sha256sum | cut -c1-16); }
fill() { for file in a b c; do dd if=/dev/urandom of="$mounted/$file" bs=1M count=3 conv=fsync status=none; done; }

clean_up() {
	umount -q "$mounted" || true
	rmdir "$mounted"
	[ -z "$made" ] || vgremove -ff -y -q walk >/dev/null
}
trap clean_up EXIT

step "A volume group on two disks, and a file system on a logical volume."
run vgcreate -q -y walk "$1" "$2"
made=1
run lvcreate -q -y -L 32M -n data walk
run mkfs.ext4 -q /dev/walk/data
# lost+found is no content
run mount /dev/walk/data "$mounted"
rmdir "$mounted/lost+found"
fill
before=$(checksum)

step "A snapshot of it, while it is mounted. LVM freezes the file system for that moment."
run lvcreate -q -y -s -L 12M -n snap walk/data

step "The files are overwritten; the snapshot has the old ones."
fill
after=$(checksum)
[ "$after" != "$before" ]
run lvs -o lv_name,lv_attr,origin,snap_percent walk
run umount "$mounted"
run mount -o ro /dev/walk/snap "$mounted"
[ "$(checksum)" = "$before" ]
run umount "$mounted"
echo "volume $after…, snapshot $before…"

step "It gets full, so it gets more room, without being taken down."
run lvextend -q -L 32M walk/snap
run lvs -o lv_name,lv_attr,origin,snap_percent walk

step "All of it is deactivated and activated again, as a reboot would do."
run vgchange -q -an walk
run vgchange -q -ay walk
run mount -o ro /dev/walk/snap "$mounted"
[ "$(checksum)" = "$before" ]
run umount "$mounted"

step "Merged back, the volume is what the snapshot was, and the snapshot is gone."
run lvconvert -q -y --merge -i 1 walk/snap
run mount -o ro /dev/walk/data "$mounted"
[ "$(checksum)" = "$before" ]
run umount "$mounted"
run lvs -o lv_name,lv_attr,origin,snap_percent walk

step "A snapshot that gets too much becomes invalid (the I in its attributes). The volume does not care."
run lvcreate -q -y -s -L 4M -n small walk/data
run mount /dev/walk/data "$mounted"
fill
after=$(checksum)
run umount "$mounted"
run lvs -o lv_name,lv_attr,origin,snap_percent walk
[ "$(lvs --noheadings -o lv_attr walk/small | tr -d ' ' | cut -c5)" = I ]
run mount -o ro /dev/walk/data "$mounted"
[ "$(checksum)" = "$after" ]
run umount "$mounted"
run lvremove -q -y walk/small
