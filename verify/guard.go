package verify

import "net/netip"

// Guard is a guarded attachment: two links of one namespace, neither of them the
// container's, between which only those frames pass that carry the lease.
type Guard struct {
	Outside    int          `json:"outside"` // ifindex of the macvlan
	Inside     int          `json:"inside"`  // ifindex of the near end of the container's veth pair
	MAC        MAC          `json:"mac"`
	MTU        int          `json:"mtu"`
	Addrs      []netip.Addr `json:"addrs"`              // leased; at most MaxAddrs
	Gateways   []netip.Addr `json:"gateways,omitempty"` // may be asked for with no address; at most MaxGateways
	Attachment ID           `json:"attachment"`
}

// Guarded is what a guard has let through and stopped.
type Guarded struct {
	OutFrames uint64 `json:"out_frames"`
	OutBytes  uint64 `json:"out_bytes"`
	InFrames  uint64 `json:"in_frames"`
	InBytes   uint64 `json:"in_bytes"`
	// OutDropped and InDropped count by reason; reasons that were never met are
	// left out.
	OutDropped map[string]uint64 `json:"out_dropped,omitempty"`
	InDropped  map[string]uint64 `json:"in_dropped,omitempty"`
}

// Dropped is how many frames of the container's were stopped.
func (g Guarded) Dropped() (n uint64) {
	for _, count := range g.OutDropped {
		n += count
	}
	return n
}

// ProbeLinkLocal is the address that a parent with this MAC asks from whether an IPv6
// address is in use. It is as [MAC.LinkLocal], with 6c:79 in place of ff:fe (wire.c,
// PROBE_MARK), so that no interface has it.
func (m MAC) ProbeLinkLocal() netip.Addr {
	a := m.LinkLocal().As16()
	a[11], a[12] = 0x6c, 0x79
	return netip.AddrFrom16(a)
}

// LinkLocal is the IPv6 link-local address that goes with a MAC (RFC 4291,
// appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}
