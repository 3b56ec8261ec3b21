#!/bin/sh
# Builds a Vagrant box for libvirt from Debian's packages, for a machine that cannot download one.
# The box has the packages that switch.sh and host.sh need, so that they install none.
# Usage: box.sh SUITE KEY.pub OUT.box, as root.
set -eu

suite=$1 key=$2 out=$3
gigabytes=4
packages=linux-image-amd64,systemd-sysv,dbus,udev,openssh-server,sudo,iproute2,iputils-ping,tcpdump
packages=$packages,lldpd,dnsmasq,podman,crun,busybox-static
parameters="root=/dev/vda1 net.ifnames=0 console=ttyS0 quiet no_timer_check tsc=reliable mitigations=off"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

# The initial RAM disk of Debian has the drivers of every machine: emulated, it takes long to unpack.
cat > "$work/initramfs.conf" <<'CONF'
MODULES=list
COMPRESS=zstd
CONF
cat > "$work/eth0.network" <<'CONF'
[Match]
Name=eth0
[Network]
DHCP=ipv4
[DHCPv4]
ClientIdentifier=mac
CONF
# The mirror that this machine uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
	grep '/debian/$' | head -n 1)
# A machine-id of its own for each machine: Lanyard derives MACs from it.
mmdebstrap --quiet --variant=apt --dpkgopt=force-unsafe-io --include="$packages" \
	--aptopt='APT::Sandbox::User ""' \
	--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
	--essential-hook="copy-in $work/initramfs.conf /etc/initramfs-tools/conf.d" \
	--essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" > "$1/etc/initramfs-tools/modules"' \
	--customize-hook="copy-in $work/eth0.network /etc/systemd/network" \
	--customize-hook='chroot "$1" systemctl enable systemd-networkd' \
	--customize-hook='chroot "$1" systemctl disable dnsmasq lldpd' \
	--customize-hook='chroot "$1" useradd --create-home --shell /bin/bash vagrant' \
	--customize-hook='echo "vagrant ALL=(ALL) NOPASSWD: ALL" > "$1/etc/sudoers.d/vagrant"' \
	--customize-hook='mkdir -m 700 "$1/home/vagrant/.ssh"' \
	--customize-hook="upload $key /home/vagrant/.ssh/authorized_keys" \
	--customize-hook='chroot "$1" chown -R vagrant: /home/vagrant/.ssh' \
	--customize-hook='echo "/dev/vda1 / ext4 noatime 0 1" > "$1/etc/fstab"' \
	--customize-hook='echo "UseDNS no" > "$1/etc/ssh/sshd_config.d/vagrant.conf"' \
	--customize-hook=': > "$1/etc/machine-id"' \
	"$suite" "$root" "$mirror"

# A disk of one partition. The boot loader is in the gap before it, where GRUB's first sector looks
# for the next by default; so nothing has to be mounted.
disk=$work/disk
truncate --size ${gigabytes}G "$disk"
echo 'start=2048, type=83, bootable' | sfdisk --quiet "$disk"
mke2fs -q -t ext4 -O ^metadata_csum_seed,^orphan_file -E offset=1048576 -d "$root" "$disk" \
	$((gigabytes * 1024 - 1))M
cat > "$work/grub.cfg" <<CONF
set root=(hd0,msdos1)
linux /vmlinuz $parameters
initrd /initrd.img
boot
CONF
grub-mkimage --format i386-pc --prefix '' --config "$work/grub.cfg" --output "$work/core.img" \
	biosdisk part_msdos ext2 linux
test "$(stat --format %s "$work/core.img")" -lt $((2047 * 512))
dd status=none conv=notrunc if=/usr/lib/grub/i386-pc/boot.img of="$disk" bs=446 count=1
dd status=none conv=notrunc if="$work/core.img" of="$disk" bs=512 seek=1

mkdir "$work/box"
qemu-img convert -c -O qcow2 "$disk" "$work/box/box.img"
echo "{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": $gigabytes}" \
	> "$work/box/metadata.json"
echo 'Vagrant.configure("2") { |config| config.vm.synced_folder ".", "/vagrant", disabled: true }' \
	> "$work/box/Vagrantfile"
mkdir -p "$(dirname "$out")"
tar --directory "$work/box" --create --gzip --file "$out" metadata.json Vagrantfile box.img
