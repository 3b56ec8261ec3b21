package ndp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/verify"
)

// Types of messages (RFC 4861 §4) and of options (§4.6.1).
const (
	typeRS = 133
	typeRA = 134
	typeNS = 135
	typeNA = 136

	sourceLinkLayer = 1
	targetLinkLayer = 2
)

// Flags in the first byte behind an advertisement's checksum (RFC 4861 §4.4).
const (
	flagRouter    = 1 << 7
	flagSolicited = 1 << 6
	flagOverride  = 1 << 5
)

// bodyOf is how long a message is without its options, in bytes; 0 where it is none of these.
func bodyOf(kind byte) int {
	switch kind {
	case typeRS:
		return 8
	case typeRA:
		return 16
	case typeNS, typeNA:
		return 24
	}
	return 0
}

// icmp gives a message that has its checksum still to come, with a link-layer
// address for its only option, or none.
func icmp(kind, option byte, mac verify.MAC) []byte {
	b := make([]byte, bodyOf(kind), bodyOf(kind)+8)
	b[0] = kind
	if !mac.IsZero() {
		b = append(append(b, option, 1), mac[:]...)
	}
	return b
}

// split takes a message apart, whose header was read, into what stands before its
// options and the MAC that one of them names, zero where none does. Other options are
// none of ours, and only have to end where the message does.
func split(b []byte, option byte) (body []byte, mac verify.MAC, err error) {
	n := bodyOf(b[0])
	if len(b) < n {
		return nil, mac, fmt.Errorf("read ND: %d bytes of a message of type %d", len(b), b[0])
	}
	for rest := b[n:]; len(rest) > 0; {
		const unit = 8 // bytes
		if len(rest) < unit || rest[1] == 0 || len(rest) < unit*int(rest[1]) {
			return nil, mac, errors.New("read ND: an option of no length, or one beyond the end")
		}
		if kind := rest[0]; kind == sourceLinkLayer || kind == targetLinkLayer {
			if rest[1] != 1 {
				return nil, mac, fmt.Errorf("read ND: a link-layer address of %d bytes", unit*int(rest[1])-2)
			}
			if kind == option && mac.IsZero() {
				mac = verify.MAC(rest[2:unit])
			}
		}
		rest = rest[unit*int(rest[1]):]
	}
	return b[:n], mac, nil
}

// sum puts the checksum into a message.
func sum(from, to netip.Addr, b []byte) {
	addresses := append(from.AsSlice(), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[2:], ^checksum(addresses, b))
}
