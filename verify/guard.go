package verify

import (
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Guard describes a guarded attachment to the guard's programs: two links in one namespace, neither
// of them the container's. Only frames that carry the leased MAC and addresses pass between them.
type Guard struct {
	Outside    int          `json:"outside"` // ifindex of the macvlan
	Inside     int          `json:"inside"`  // ifindex of the near end of the container's veth pair
	MAC        ether.MAC    `json:"mac"`
	MTU        int          `json:"mtu"`
	Addrs      []netip.Addr `json:"addrs"`              // leased addresses; at most MaxAddrs
	Gateways   []netip.Addr `json:"gateways,omitempty"` // may be asked for without a source address; at most MaxGateways
	Autoconf   bool         `json:"autoconf,omitempty"` // routers give addresses, too, which end with the MAC's EUI-64
	Attachment ID           `json:"attachment"`
	// Asks is set if the service asks DHCP servers from the container's own interface, and not from outside of the
	// guard: then the container can do so, too.
	Asks bool `json:"asks,omitempty"`
}

// Guarded counts the frames and bytes that a guard has passed and dropped.
type Guarded struct {
	OutFrames uint64 `json:"out_frames"`
	OutBytes  uint64 `json:"out_bytes"`
	InFrames  uint64 `json:"in_frames"`
	InBytes   uint64 `json:"in_bytes"`
	// OutDropped and InDropped count frames by the reason of the drop. Reasons that did not occur
	// are left out.
	OutDropped map[string]uint64 `json:"out_dropped,omitempty"`
	InDropped  map[string]uint64 `json:"in_dropped,omitempty"`
}

// Dropped returns how many frames of the container were dropped.
func (g Guarded) Dropped() (n uint64) {
	for _, count := range g.OutDropped {
		n += count
	}
	return n
}
