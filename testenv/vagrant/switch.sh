#!/bin/sh
# Makes this machine a switch: a bridge with VLANs, a gateway in each VLAN, DHCP in VLAN 10, and LLDP.
# It runs at each "vagrant up", because a restart removes the bridge.
set -eu

if ! dpkg --status lldpd dnsmasq > /dev/null 2>&1; then
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install lldpd dnsmasq
fi
install /tmp/set-vlan /usr/local/sbin/set-vlan

[ -e /sys/class/net/br0 ] || ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0
ip link set br0 up
for vlan in 10 50; do
	bridge vlan add dev br0 vid $vlan self
	[ -e /sys/class/net/br0.$vlan ] || ip link add link br0 name br0.$vlan type vlan id $vlan
	ip address replace 192.168.$vlan.1/24 dev br0.$vlan
	ip link set br0.$vlan up
done

cat > /etc/dnsmasq.d/vlan10.conf <<'CONF'
port=0
interface=br0.10
bind-interfaces
dhcp-range=192.168.10.100,192.168.10.199,1h
CONF
systemctl restart dnsmasq

# Each port has the name of the host at its other end.
card=eth1
for port in host1 host2; do
	if [ ! -e /sys/class/net/$port ]; then
		ip link set $card down
		ip link set $card name $port
	fi
	ip link set $port master br0 up
	card=eth2
done

systemctl restart lldpd
lldpcli configure lldp portidsubtype ifname
lldpcli configure lldp tx-interval 5
set-vlan host1 10 50
set-vlan host2 10 50
