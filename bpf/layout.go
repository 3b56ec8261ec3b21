package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// These have the same values in wire.c.
const (
	anyTags  = 0xffffffff
	inPacket = 0x8000
	vidMask  = 0x0fff

	flagEnforce = 1 // flags of an endpoint
	flagShared  = 2 // placeholder: the endpoints of this MAC are in the map "shared"

	flagLeased    = 1 // flags of an address
	flagGateway   = 2
	flagTentative = 4

	localParent  = 1 // kinds of a MAC in the map "locals"
	localSibling = 2

	// layout is part of the pins' names. It changes with the constants above and with the types of
	// the maps.
	layout = 3

	// edition counts the versions of the programs. It is raised with each change of what they do: a
	// trunk with programs of an earlier edition then gets the new ones, and keeps its maps.
	edition = 1
)

// tagKey is the form of at most two tags in a map's key, outermost first.
type tagKey struct{ outer, inner uint32 }

// anyTagKey is the key of a gateway's address under tags that no endpoint expects (wire.c,
// ANY_TAGS).
var anyTagKey = tagKey{anyTags, anyTags}

// tagKeyOf returns the key of tags. It returns an error for more than two tags, or invalid ones.
func tagKeyOf(t ether.Tags) (p tagKey, err error) {
	if len(t) > 2 {
		return p, fmt.Errorf("%d tags (%s): at most two are watched", len(t), t)
	}
	words := [2]uint32{}
	for i, tag := range t {
		if tag.TPID == 0 || tag.VID == 0 || tag.VID > 4094 {
			return p, fmt.Errorf("tag %#04x with VID %d: want 1 to 4094", tag.TPID, tag.VID)
		}
		words[i] = uint32(tag.TPID)<<16 | uint32(tag.VID)
	}
	return tagKey{words[0], words[1]}, nil
}

// tagsOf reads tags as the programs write them, and whether the outermost one was in the packet's
// bytes.
func tagsOf(words ...uint32) (t ether.Tags, inBytes bool) {
	for _, w := range words {
		if w == 0 {
			break
		}
		t = append(t, ether.Tag{TPID: uint16(w >> 16), VID: uint16(w & vidMask)})
	}
	return t, len(words) > 0 && words[0]&inPacket != 0
}

func (p tagKey) endpoint(mac ether.MAC) *wireEndpointKey {
	return &wireEndpointKey{Outer: p.outer, Inner: p.inner, Mac: mac}
}

func macKey(mac ether.MAC) *wireMacKey { return &wireMacKey{Mac: mac} }

// hintOf returns the slot of an address in the hints: wire.c, find_hint.
func hintOf(k *wireAddressKey) uint32 {
	a, b := binary.NativeEndian.Uint64(k.Addr[:8]), binary.NativeEndian.Uint64(k.Addr[8:])
	h := (a*31+b)*31 + (uint64(k.Inner)<<32 | uint64(k.Outer))
	return uint32(h * 0x9e3779b97f4a7c15 >> 52)
}

// hintOfMAC returns the slot of a MAC in the hints: wire.c, mac_may_be_local.
func hintOfMAC(mac ether.MAC) uint32 {
	h := uint64(binary.NativeEndian.Uint32(mac[:4])) | uint64(binary.NativeEndian.Uint16(mac[4:]))<<32
	return uint32(h * 0x9e3779b97f4a7c15 >> 52)
}

func (p tagKey) address(addr netip.Addr) *wireAddressKey {
	return &wireAddressKey{Outer: p.outer, Inner: p.inner, Addr: addr.As16()}
}

// addrOf reads an address, the zero Addr if the slot is empty.
func addrOf(b [16]byte) netip.Addr {
	if b == ([16]byte{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(b).Unmap()
}

// checkEndpoint returns an error for an endpoint that the maps cannot hold.
func checkEndpoint(e verify.Endpoint) error {
	switch {
	case !e.MAC.IsUnicast():
		return fmt.Errorf("MAC %q is not a unicast address", e.MAC)
	case len(e.Addrs) > verify.MaxAddrs:
		return fmt.Errorf("%d addresses: at most %d are watched", len(e.Addrs), verify.MaxAddrs)
	case len(e.Gateways) > verify.MaxGateways:
		return fmt.Errorf("%d gateways: at most %d are watched", len(e.Gateways), verify.MaxGateways)
	}
	for _, list := range [][]netip.Addr{e.Addrs, e.Gateways} {
		for _, a := range list {
			if !a.IsValid() || a.IsUnspecified() || a.Zone() != "" {
				return fmt.Errorf("address %q: want a host's address without a zone", a)
			}
		}
	}
	return nil
}
