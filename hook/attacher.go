// Package hook turns what a container runtime says into an interface on the
// LAN, and takes it back: it decodes the runtime's state and the container's
// annotations into a [Request], and carries out attach and detach as one
// transaction each, on record before they begin.
//
// It decides the order of things and what to undo. How links, leases,
// definitions and verdicts work is for hook/link, ipam, hook/network and verify
// to know.
package hook

import (
	"context"
	"errors"
	"net/netip"

	"github.com/lanyard-net/lanyard/verify"
)

// Attacher attaches containers: in process ([Local]), or through a broker for
// callers without privilege. The hook cannot tell which.
type Attacher interface {
	// Attach gives the container every interface that the request wants, or
	// none. The same container asking again gets what it has.
	Attach(ctx context.Context, r Request) ([]Attachment, error)
	// Detach lets go of whatever the container held and no longer needs. It
	// works from the record alone, and may be called twice, late, or for a
	// container that never was: nil.
	Detach(ctx context.Context, containerID string) error
}

// Request is what one container asks for.
type Request struct {
	Container string // the runtime's id
	Name      string // what the engine calls it, stable over restarts; "" if it does not say
	Pid       int    // the container's init, as the host sees it
	Pod       Pod    // zero outside Kubernetes
	Wants     []Want
	Trace     *Trace `json:"-"` // notes what the steps took; nil for none
}

// Pod is where in Kubernetes a container belongs.
type Pod struct {
	Sandbox   string `json:"sandbox,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// Want is one interface of a request.
type Want struct {
	Network   string
	Interface string       // "" takes the first free of eth0, eth1, …
	Addrs     []netip.Addr // asked for by name, at most one of each family
	MAC       verify.MAC   // zero derives one from the address
	MTU       int          // 0 takes the network's
	Verify    verify.Mode  // may tighten what the network asks; "" leaves it
	// Default says whether the interface takes the default routes; nil
	// leaves each to whoever has it already, and else to the first of the request
	// whose network has a gateway.
	Default *bool
}

// ErrUnprivileged is returned by Attach and Detach when the caller may not
// change the host's network: the hook then turns to the broker.
var ErrUnprivileged = errors.New("no CAP_NET_ADMIN on the host")
