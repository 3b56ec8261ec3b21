// Package lldp reads what the switch at the other end of a link says of the port: its name, its
// native VLAN and the VLANs that it carries (IEEE 802.1AB, and the TLVs of 802.1Q annex D). It hears
// a frame from a packet socket, or asks lldpd. It sends nothing.
package lldp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Neighbour is what a switch says of itself and of the port that a link is connected to.
type Neighbour struct {
	Switch string `json:"switch"` // the system's name, or its chassis id
	Port   string `json:"port"`
	// PVID is the VLAN of untagged frames; 0 if the port has none, or if the switch does not say.
	PVID uint16 `json:"pvid,omitzero"`
	// VLANs are those that the switch names for the port, sorted. Empty: it does not say.
	VLANs []uint16 `json:"vlans"`
	// TTL is for how many seconds a frame says this; 0 if it is not from a frame.
	TTL uint16 `json:"ttl,omitzero"`
}

// EtherType is the protocol of LLDP frames.
const EtherType = 0x88cc

// Types of TLVs (IEEE 802.1AB-2016, table 8-1).
const (
	tlvEnd = iota
	tlvChassis
	tlvPort
	tlvTTL
	tlvPortDescription
	tlvSystemName
	tlvOrganization = 127
)

// TLVs of 802.1 (IEEE 802.1Q-2018, table D-1).
const (
	oui8021     = "\x00\x80\xc2"
	subtypePVID = 1
	subtypeVLAN = 3
)

var (
	errShort = errors.New("LLDP: the frame is too short")
	errOrder = errors.New("LLDP: the first TLVs are not chassis, port and TTL")
	// ErrLeaves is returned for a neighbour that says that it is leaving (a TTL of 0).
	ErrLeaves = errors.New("LLDP: the neighbour is leaving")
)

// Parse reads an LLDP frame, which may carry one VLAN tag. The texts are those of the frame, with
// "?" for what is not printable.
func Parse(frame []byte) (n Neighbour, err error) {
	b, err := payload(frame)
	if err != nil {
		return n, err
	}
	var chassis string
	for at := 0; ; at++ {
		if len(b) < 2 {
			return Neighbour{}, errShort
		}
		head := binary.BigEndian.Uint16(b)
		kind, size := int(head>>9), int(head&0x1ff)
		if len(b) < 2+size {
			return Neighbour{}, errShort
		}
		value := b[2 : 2+size]
		b = b[2+size:]
		if at < 3 && kind != at+1 { // these three come first, once
			return Neighbour{}, errOrder
		}
		switch kind {
		case tlvEnd:
			return n.finish(chassis), nil
		case tlvChassis:
			chassis, err = identifier(value, 4, 5)
		case tlvPort:
			n.Port, err = identifier(value, 3, 4)
		case tlvTTL:
			if len(value) != 2 {
				return Neighbour{}, errShort
			}
			if n.TTL = binary.BigEndian.Uint16(value); n.TTL == 0 {
				return Neighbour{}, ErrLeaves
			}
		case tlvSystemName:
			n.Switch = printable(value)
		case tlvOrganization:
			err = n.organization(value)
		}
		if err != nil {
			return Neighbour{}, err
		}
	}
}

// payload returns the TLVs of a frame.
func payload(frame []byte) ([]byte, error) {
	const header, tag = 14, 4
	if len(frame) < header+tag {
		return nil, errShort
	}
	kind := frame[12:]
	if binary.BigEndian.Uint16(kind) == ether.Dot1Q {
		kind = kind[tag:]
	}
	if binary.BigEndian.Uint16(kind) != EtherType {
		return nil, fmt.Errorf("LLDP: EtherType %#x", binary.BigEndian.Uint16(kind))
	}
	return kind[2:], nil
}

// identifier returns the text of a chassis or port id: a subtype and up to 255 bytes. mac and addr
// are the subtypes for a MAC and a network address.
func identifier(value []byte, mac, addr byte) (string, error) {
	if len(value) < 2 {
		return "", errShort
	}
	id := value[1:]
	switch {
	case value[0] == mac && len(id) == 6:
		return net.HardwareAddr(id).String(), nil
	case value[0] == addr:
		// The first byte is the address family.
		if a, ok := netip.AddrFromSlice(id[1:]); ok {
			return a.String(), nil
		}
	}
	return printable(id), nil
}

// organization reads a TLV of an organization. It skips those that it does not know.
func (n *Neighbour) organization(value []byte) error {
	if len(value) < 4 {
		return errShort
	}
	if string(value[:3]) != oui8021 {
		return nil
	}
	switch kind, info := value[3], value[4:]; {
	case kind != subtypePVID && kind != subtypeVLAN:
	case len(info) < 2:
		return errShort
	case kind == subtypePVID:
		n.PVID = binary.BigEndian.Uint16(info)
	default:
		n.VLANs = append(n.VLANs, binary.BigEndian.Uint16(info))
	}
	return nil
}

// finish completes a neighbour after its last TLV.
func (n Neighbour) finish(chassis string) Neighbour {
	if n.Switch == "" {
		n.Switch = chassis
	}
	valid := func(vid uint16) bool { return vid > 0 && vid < 4095 }
	if !valid(n.PVID) {
		n.PVID = 0
	}
	n.VLANs = slices.DeleteFunc(append([]uint16{}, n.VLANs...), func(vid uint16) bool { return !valid(vid) })
	slices.Sort(n.VLANs)
	n.VLANs = slices.Compact(n.VLANs)
	return n
}

// printable returns text with "?" for control characters and invalid UTF-8.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
}

// String returns the port in the words of errors: port "Gi1/0/7" of switch "sw-a".
func (n Neighbour) String() string { return fmt.Sprintf("port %q of switch %q", n.Port, n.Switch) }

// List returns the VLANs as "10, 50".
func (n Neighbour) List() string {
	words := make([]string, len(n.VLANs))
	for i, vid := range n.VLANs {
		words[i] = strconv.Itoa(int(vid))
	}
	return strings.Join(words, ", ")
}

// Named returns the VLANs as sentences name them: "VLAN 60", or "VLANs 10, 50".
func (n Neighbour) Named() string {
	if len(n.VLANs) == 1 {
		return "VLAN " + n.List()
	}
	return "VLANs " + n.List()
}

// Differs says how the VLANs of the port differ from what frames with these tags need. It returns
// "" if they do not, or if the switch does not say. A switch may leave out VLANs that do not fit its
// frame, so only frames on the wire prove that a VLAN is missing.
func (n Neighbour) Differs(tags ether.Tags) string {
	if len(tags) == 0 || tags[0].TPID != ether.Dot1Q {
		return ""
	}
	switch vid := tags[0].VID; {
	case vid == n.PVID:
		return fmt.Sprintf("VLAN %d is the PVID of %s, for untagged frames: make it tagged there, or use the trunk itself "+
			"as parent", vid, n)
	case len(n.VLANs) > 0 && !slices.Contains(n.VLANs, vid):
		return fmt.Sprintf("%s carries %s, and not %d: add it there", n, n.Named(), vid)
	}
	return ""
}
