package verify

import "net/netip"

// Guard describes a guarded attachment to the guard's programs: two links in one namespace, neither
// of them the container's. Only frames that carry the leased MAC and addresses pass between them.
type Guard struct {
	Outside    int          `json:"outside"` // ifindex of the macvlan
	Inside     int          `json:"inside"`  // ifindex of the near end of the container's veth pair
	MAC        MAC          `json:"mac"`
	MTU        int          `json:"mtu"`
	Addrs      []netip.Addr `json:"addrs"`              // leased addresses; at most MaxAddrs
	Gateways   []netip.Addr `json:"gateways,omitempty"` // may be asked for without a source address; at most MaxGateways
	Attachment ID           `json:"attachment"`
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

// ProbeLinkLocal returns the address from which a parent with this MAC asks whether an IPv6 address
// is in use. It is [MAC.LinkLocal] with 6c:79 in place of ff:fe (wire.c, PROBE_MARK), so that no
// interface has it.
func (m MAC) ProbeLinkLocal() netip.Addr {
	a := m.LinkLocal().As16()
	a[11], a[12] = 0x6c, 0x79
	return netip.AddrFrom16(a)
}

// LinkLocal returns the IPv6 link-local address that belongs to a MAC (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}
