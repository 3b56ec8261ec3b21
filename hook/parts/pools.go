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
// does not, because the network has another generation on every host.
func PoolName(def *network.Definition, s network.Subnet) string {
	if def.Leases != "" {
		return def.Name + "/" + s.Subnet.String()
	}
	return def.Name + "/" + def.ID + "/" + s.Subnet.String()
}
