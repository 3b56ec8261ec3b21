#!/bin/sh
# Makes this machine a host of containers: podman, Lanyard's package, lldpd, and eth1 as the trunk.
set -eu
export DEBIAN_FRONTEND=noninteractive

if ! dpkg --status podman busybox-static lldpd > /dev/null 2>&1; then
	apt-get -qq update
	apt-get -qq --yes install podman busybox-static lldpd
fi
apt-get -qq --yes -o Dpkg::Use-Pty=0 install --no-install-recommends /tmp/lanyard.deb

# The trunk needs no address of its own, and no network manager: only to be up.
cat > /etc/systemd/system/trunk.service <<'UNIT'
[Unit]
Description=eth1, the trunk to the switch
Before=network-pre.target
Wants=network-pre.target
[Service]
Type=oneshot
ExecStart=/usr/sbin/ip link set eth1 up
[Install]
WantedBy=multi-user.target
UNIT
systemctl enable --quiet --now trunk.service

# lldpd hears which port of the switch this is, and tells Lanyard.
echo 'configure system interface pattern eth1' > /etc/lldpd.d/trunk.conf
systemctl enable --quiet lldpd
systemctl restart lldpd

# A root file system for containers.
mkdir -p /srv/rootfs/bin
install /usr/bin/busybox /srv/rootfs/bin/busybox
for tool in sh ip ping sleep; do ln -sf busybox /srv/rootfs/bin/$tool; done
