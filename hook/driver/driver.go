// Package driver creates, finds and removes the interfaces of attachments. Each kind of interface is
// a [Driver] in a file of its own.
package driver

import (
	"context"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/verify"
)

// Driver is one kind of interface.
type Driver interface {
	// Create creates the interface in the container's namespace and sets it up. It returns an
	// error that wraps link.ErrMACBusy if another link of the parent has the MAC until ctx ends.
	// After an error, Remove deletes an incomplete interface.
	Create(ctx context.Context, ns *link.Netns, s Spec) (Created, error)
	// Readdress changes a created interface to the MAC, the MTU and the addresses of s.
	Readdress(ctx context.Context, ns *link.Netns, i link.Interface, s Spec) (Created, error)
	// Matches reports whether an interface at the attachment's ifindex can be the attachment's, by
	// its kind and its parent: a namespace gives the ifindexes of deleted links to others.
	Matches(i *link.Interface, a *hook.Attachment) bool
	// Exists reports whether the attachment's interface exists. The owner of the namespace can
	// delete it.
	Exists(ns *link.Netns, a *hook.Attachment) (bool, error)
	// OnLAN runs f in the namespace of the attachment's link on the LAN, with that link's ifindex.
	// Of a guarded attachment this is the macvlan: the guard drops DHCP messages on the pair.
	OnLAN(ns *link.Netns, a *hook.Attachment, f func(index int) error) error
	// Remove deletes the attachment's interface, complete or not, if its namespace exists: the
	// kernel deletes the interface together with the namespace. An interface that does not exist
	// is not an error.
	Remove(a hook.Attachment) error

	// WhyUnwatchable returns why the datapath cannot tell the interface's frames from those of a
	// parent with this name; "" if it can.
	WhyUnwatchable(parent string) string
	// AsksFromParent reports whether the parent asks and announces for the interface, because the
	// interface does not receive the answers.
	AsksFromParent() bool
}

// Spec describes an interface to create: the attachment's record, with its MAC and addresses, the
// network and its parent.
type Spec struct {
	Attachment hook.Attachment
	Network    *network.Definition
	Parent     link.Parent
}

// Created is an interface, and its guard if it is guarded.
type Created struct {
	link.Interface
	Guard *verify.Guard
}

// Of returns the driver of an attachment.
func Of(p *parts.Parts, a *hook.Attachment) Driver {
	switch {
	case a.Guard != nil:
		return guarded{p}
	case a.Driver == network.DriverIPvlan:
		return ipvlan{p}
	}
	return macvlan{p}
}

// ForNetwork returns the driver of a network's attachments that are not guarded.
func ForNetwork(p *parts.Parts, def *network.Definition) Driver {
	return Of(p, &hook.Attachment{Driver: def.Driver})
}

// keepsRA reports whether the interface keeps the namespace's setting for router advertisements: the
// workload configures its addresses.
func (s *Spec) keepsRA() bool { return s.Network.IPAM == network.IPAMNone && !s.Network.TakesRouters() }

// addrs returns the attachment's addresses.
func (s *Spec) addrs() []netip.Addr { return s.Attachment.Addresses() }

// hasIPv6 reports whether the interface has an IPv6 address, or gets some from routers or from the
// workload. For other interfaces IPv6 is off, so that the kernel sets no address itself.
func (s *Spec) hasIPv6() bool {
	if s.Network.IPAM == network.IPAMNone || s.Network.TakesRouters() {
		return true
	}
	for _, a := range s.addrs() {
		if a.Is6() {
			return true
		}
	}
	return false
}
