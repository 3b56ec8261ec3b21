// Package ether has the values of Ethernet frames that all packages share: MAC addresses and VLAN tags.
package ether

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
)

// MAC is an Ethernet address as a comparable value. The zero value means no address.
type MAC [6]byte

// MACOf returns a hardware address of six bytes as a MAC, and the zero MAC for any other length.
func MACOf(a net.HardwareAddr) (m MAC) {
	if len(a) == len(m) {
		copy(m[:], a)
	}
	return m
}

// IsZero reports whether m is the zero value.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast reports whether a station can have the address: it is not zero, and neither multicast nor broadcast.
func (m MAC) IsUnicast() bool { return !m.IsZero() && m[0]&1 == 0 }

// Hardware returns the address in the form that package net uses.
func (m MAC) Hardware() net.HardwareAddr { return net.HardwareAddr(m[:]) }

// String returns the form "02:42:c0:a8:32:02".
func (m MAC) String() string { return m.Hardware().String() }

// MarshalText returns the form of String, and "" for the zero MAC.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText returns. It returns an error for anything but six bytes.
func (m *MAC) UnmarshalText(b []byte) error {
	*m = MAC{}
	if len(b) == 0 {
		return nil
	}
	a, err := net.ParseMAC(string(b))
	if err != nil || len(a) != len(m) {
		return fmt.Errorf("MAC address %q: want six bytes such as 02:42:c0:a8:32:02", b)
	}
	copy(m[:], a)
	return nil
}

// vendors lists the MAC prefixes that tell an operator most about an unexpected MAC: the kind of
// virtual machine or container. The whole IEEE registry would be larger than the rest of the
// program.
var vendors = []struct {
	prefix []byte
	name   string
	router bool // several routers answer with it in turns
}{
	{[]byte{0x00, 0x00, 0x5e, 0x00, 0x01}, "VRRP or CARP", true},    // RFC 5798 §7.3
	{[]byte{0x00, 0x00, 0x5e, 0x00, 0x02}, "VRRP for IPv6", true},   // RFC 5798 §7.3
	{[]byte{0x00, 0x00, 0x0c, 0x07, 0xac}, "HSRP", true},            // RFC 2281 §5.3
	{[]byte{0x00, 0x00, 0x0c, 0x9f, 0xf0}, "HSRP version 2", true},  // groups below 256
	{[]byte{0x00, 0x05, 0x73, 0xa0, 0x00}, "HSRP for IPv6", true},   // groups below 256
	{[]byte{0x00, 0x07, 0xb4, 0x00}, "GLBP", true},                  // group and member follow
	{[]byte{0x00, 0x05, 0x69}, "VMware", false},                     // and the next two
	{[]byte{0x00, 0x0c, 0x29}, "VMware", false},                     //
	{[]byte{0x00, 0x50, 0x56}, "VMware", false},                     //
	{[]byte{0x00, 0x15, 0x5d}, "Hyper-V", false},                    //
	{[]byte{0x00, 0x16, 0x3e}, "Xen", false},                        //
	{[]byte{0x08, 0x00, 0x27}, "VirtualBox", false},                 //
	{[]byte{0x52, 0x54, 0x00}, "QEMU", false},                       // libvirt, Proxmox before 8
	{[]byte{0xbc, 0x24, 0x11}, "Proxmox", false},                    //
	{[]byte{0x02, 0x42}, "a container of Docker or Lanyard", false}, // followed by its IPv4 address
}

// Vendor returns what the first bytes of the MAC say about its owner, "" if nothing is known.
func (m MAC) Vendor() string {
	for _, p := range vendors {
		if bytes.HasPrefix(m[:], p.prefix) {
			return p.name
		}
	}
	if m[0]&2 != 0 {
		return "set by hand or by software" // locally administered
	}
	return ""
}

// Virtual reports whether the MAC belongs to a router group, in which another member may answer the
// next time.
func (m MAC) Virtual() bool {
	for _, p := range vendors {
		if p.router && bytes.HasPrefix(m[:], p.prefix) {
			return true
		}
	}
	return false
}

// Describe returns the MAC, followed by its vendor if that is known.
func (m MAC) Describe() string {
	if v := m.Vendor(); v != "" {
		return fmt.Sprintf("%s (%s)", m, v)
	}
	return m.String()
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
