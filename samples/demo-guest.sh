#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Usage: demo-guest.sh 1|2    (in a guest of scripts/demo, which runs part 1, reboots and runs part 2)
#
# The two parts of `make demo`: with the real commands, each shown before it runs.

set -eu

part=$1
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
# whose dm-snapshot is loaded: the kernel marks a module that is not from its own tree
core() { case $(cat /sys/module/dm_snapshot/taint) in *O*) echo rust ;; *) echo c ;; esac; }

mkdir -p "$files"
# nothing is loaded yet: LVM has to find it by itself
modprobe -r dm-snapshot

if [ "$part" = 1 ]; then
	step "Of the two modules of this name, depmod found ours in updates/ first."
	run modinfo -F filename dm-snapshot
	run modinfo -F description dm-snapshot
	case $(modinfo -F filename dm-snapshot) in */updates/*) ;; *) fail "that is not ours" ;; esac

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
	same "$(core)" rust "the core that LVM had loaded"
	run dmsetup targets | grep -E '^(#|snapshot)'
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
	# the next boot has to know
	run lvchange -q --addtag "old-$old" --addtag "new-$new" demo/data

	step "Deactivated. The module would not have gone before."
	! rmmod dm_snapshot 2>/dev/null || fail "the module went while a snapshot was alive"
	run vgchange -q -an demo
	run rmmod dm_snapshot
	exit
fi

step "After the reboot the volume group is activated, and the snapshot is what it was."
run vgchange -q -ay demo
same "$(core)" rust "the core that LVM had loaded"
tags=$(lvs --noheadings -o lv_tags demo/data | tr ',' '\n' | tr -d ' ')
old=$(echo "$tags" | sed -n 's/^old-//p') new=$(echo "$tags" | sed -n 's/^new-//p')
{ [ -n "$old" ] && [ -n "$new" ]; } || fail "the checksums did not survive"
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
run lvremove -q -y demo/small

step "At the end, a snapshot that our targets made and the kernel's own keep."
run lvcreate -q -y -s -L 32M -n last demo/data
last=$(files_of /dev/demo/last)
run mount /dev/demo/data "$files"
write "the last content"
run umount "$files"
run vgchange -q -an demo
run modprobe -r dm-snapshot
run modprobe dm-bufio
run insmod "$(echo "/lib/modules/$(uname -r)/kernel/drivers/md/dm-snapshot.ko"*)"
run vgchange -q -ay demo
same "$(core)" c "the core that was loaded by hand"
same "$(files_of /dev/demo/last)" "$last" "the snapshot under the kernel's own module"
run lvs -o lv_name,lv_attr,lv_size,origin,snap_percent demo
run dmsetup status demo-last
echo "checksum: snapshot $last, as when it was made"
run vgchange -q -an demo
run vgremove -q -ff -y demo
