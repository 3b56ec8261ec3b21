package parts

import (
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// PoolOf returns the pool of a network's subnet, with the addresses that ipam must not assign.
func PoolOf(def *network.Definition, s network.Subnet) ipam.Pool {
	p := ipam.Pool{Subnet: s.Subnet, Ranges: s.Ranges, Reserved: map[netip.Addr]string{}}
	for name, a := range s.Aux {
		p.Reserved[a] = fmt.Sprintf("aux-address %q", name)
	}
	if s.Gateway.IsValid() {
		p.Reserved[s.Gateway] = "gateway"
	}
	if a := def.HostAddress(s); a.IsValid() {
		p.Reserved[a] = "host's own (--host-access)"
	}
	return p
}

// PoolName returns the name of a subnet's pool of leases. In the host's own store it contains the
// network's generation, so that a recreated network starts with an empty pool. In a shared store it
// does not, because the network has another generation on every host. A network with DHCPv4 has
// one pool, because a server may change the subnet.
func PoolName(def *network.Definition, s network.Subnet) string {
	switch {
	case def.IPAM == network.IPAMDHCP:
		return ServerPool(def, 4)
	case def.Leases != "":
		return def.Name + "/" + s.Subnet.String()
	}
	return def.Name + "/" + def.ID + "/" + s.Subnet.String()
}

// ServerPool returns the name of the pool of the addresses of a family, 4 or 6, from DHCP servers.
func ServerPool(def *network.Definition, family int) string {
	if family == 6 {
		return def.Name + "/" + def.ID + "/dhcp6"
	}
	return def.Name + "/" + def.ID + "/dhcp"
}

// ServerPools returns the names of all such pools of a network.
func ServerPools(def *network.Definition) (names []string) {
	for _, family := range []int{4, 6} {
		if def.FromServers(family) {
			names = append(names, ServerPool(def, family))
		}
	}
	return names
}

// PoolNames returns the names of all pools of a network.
func PoolNames(def *network.Definition) (names []string) {
	if !def.FromServers(4) {
		for _, s := range def.Subnets {
			names = append(names, PoolName(def, s))
		}
	}
	return append(names, ServerPools(def)...)
}
