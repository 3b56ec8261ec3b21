// Package dhcp gets addresses for containers from the DHCP servers of the LAN (RFC 2131, and
// RFC 8415 for IPv6): it asks for a lease, extends it, and gives it back.
//
// It knows nothing of networks, records or guards. The caller decides on which interface it asks,
// which lease is acceptable, and what to do without one. A [Conn] sends and receives from a
// packet socket, so that it works before the interface has an address.
package dhcp

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// Client is what identifies a container to servers.
type Client struct {
	// MAC is that of the container's interface. The client identifier (option 61) is derived from it.
	MAC ether.MAC
	// Hostname is a DNS label, see [Hostname]; "": the client sends none.
	Hostname string
}

// id returns the client identifier: the hardware type and the MAC (RFC 2132 §9.14).
func (c Client) id() []byte { return append([]byte{1}, c.MAC[:]...) }

// Lease is what a server has acknowledged.
type Lease struct {
	Addr netip.Prefix `json:"address"`
	// Server is its server identifier (DHCPv4), or the source of its answer (DHCPv6).
	Server netip.Addr `json:"server"`
	// ServerID is its server identifier; DHCPv6 only.
	ServerID DUID `json:"server_duid,omitempty"`
	// ServerMAC is the source of the server's frames: the server, or the router or relay before it.
	ServerMAC ether.MAC  `json:"server_mac"`
	Gateway   netip.Addr `json:"gateway,omitzero"` // not set if the server names none
	Routes    []Route    `json:"routes,omitempty"` // without the default route
	MTU       int        `json:"mtu,omitzero"`     // in bytes; 0 if the server names none
	ipam.Resolver

	// Renew and Rebind are the times from which the client asks the server, and any server, to extend
	// the lease (T1 and T2). All three are zero if the lease does not end.
	Renew   boottime.Instant `json:"renew_boottime_ns,omitzero"`
	Rebind  boottime.Instant `json:"rebind_boottime_ns,omitzero"`
	Expires boottime.Instant `json:"expires_boottime_ns,omitzero"`
	// Deprecated is the time from which new connections do not use the address; DHCPv6 only.
	Deprecated boottime.Instant `json:"deprecated_boottime_ns,omitzero"`

	// Lost is why the container does not have the address any more; "" if it has it.
	Lost string `json:"lost,omitempty"`
	// Returned is set if the server has ended a lost lease, or has it back.
	Returned bool `json:"returned,omitzero"`
}

// Route is a route that a server names.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via,omitzero"` // not set if Dst is on the link
}

// Remaining returns for how long the lease is valid. It returns 0 for a lease that does not end, and
// at least one second for any other.
func (l *Lease) Remaining(now boottime.Instant) time.Duration {
	if l.Expires == 0 {
		return 0
	}
	return max(l.Expires.Sub(now), time.Second)
}

// Hostname returns a name as a DNS label (RFC 1123 §2.1), or "" if no character of it can be in one.
func Hostname(name string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, name)
	label = strings.TrimLeft(label, "-")
	return strings.TrimRight(label[:min(len(label), 63)], "-")
}

// Protocol is the name of a protocol in errors.
type Protocol string

const (
	V4 Protocol = "DHCP"   // DHCPv4 (RFC 2131)
	V6 Protocol = "DHCPv6" // for addresses that are not temporary (IA_NA, RFC 8415)
)

// NoLease is the error of a client that got no usable lease before its deadline.
type NoLease struct {
	Protocol Protocol
	Sent     int           // number of requests
	Waited   time.Duration // from the first one
	Refused  []Refused     // the unusable answers, at most maxRefused
}

// Refused is an answer that cannot be used.
type Refused struct {
	Protocol Protocol
	Server   netip.Addr // zero if the answer does not name it
	MAC      ether.MAC  // source of the frame
	Err      error
}

// maxRefused is the maximum number of unusable answers that are kept: a server may send any number.
const maxRefused = 4

// Error implements error.
func (e *NoLease) Error() string {
	if len(e.Refused) == 0 {
		return fmt.Sprintf("no %s server answered %d requests within %s", e.Protocol, e.Sent,
			e.Waited.Round(100*time.Millisecond))
	}
	var all []string
	for _, r := range e.Refused {
		all = append(all, r.Error())
	}
	return strings.Join(all, "; ")
}

// Unwrap returns the errors of the unusable answers.
func (e *NoLease) Unwrap() (errs []error) {
	for _, r := range e.Refused {
		errs = append(errs, r.Err)
	}
	return errs
}

// Error implements error.
func (r Refused) Error() string {
	if !r.Server.IsValid() {
		return fmt.Sprintf("%s server %s: %v", r.Protocol, r.MAC, r.Err)
	}
	return fmt.Sprintf("%s server %s (%s): %v", r.Protocol, r.Server, r.MAC, r.Err)
}

func hexOf(b []byte) string { return hex.EncodeToString(b[:min(len(b), 16)]) }
