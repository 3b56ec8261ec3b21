// Package hook has the types that cross the interfaces between packages: the request of a container,
// the attachment that it gets, and who attaches. Package hook/oci decodes requests, and hook/attach
// carries them out.
package hook

import (
	"context"
	"errors"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// Attacher attaches and detaches containers: in the calling process (hook/attach), or through a
// service for callers without privilege. Both have the same contract.
type Attacher interface {
	// Attach creates all interfaces of the request, or none: if one fails, it removes the
	// others. An interface that the container's namespace already has is not created again:
	// its attachment is returned, and the container holds it, too. The error of hook/attach is a
	// *Refusal if the verdict is fatal, and wraps ErrGone if a sweep removed the record
	// during the attach. That of a service's client has only its text.
	Attach(ctx context.Context, r Request) ([]Attachment, error)
	// Detach drops the container's references to attachments, and releases the attachments
	// that no container refers to any more. It needs only the records. It may be called
	// twice, late, or for a container without attachments: then it returns nil.
	Detach(ctx context.Context, containerID string) error
}

// Request is the interfaces that one container requests, decoded from its annotations.
type Request struct {
	Container string // the runtime's id of the container
	Name      string // the engine's name of it, stable over restarts; "" if the state has none
	Pid       int    // the container's init, in the pid namespace of the process that attaches
	// Netns is the path of the container's network namespace, instead of Pid: for runtimes that
	// start no process before the network exists (CNI). The container's reference then has no
	// process: it ends with Detach, or with the namespace.
	Netns string
	Pod   Pod // zero outside Kubernetes
	Wants []Want
	Trace *Trace `json:"-"` // records the duration of each step; nil: no trace
}

// Pod is the Kubernetes pod of a container.
type Pod struct {
	Sandbox   string `json:"sandbox,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// Want is one interface of a request.
type Want struct {
	Network   string
	Interface string       // "": the first free name of eth0, eth1, …
	Addrs     []netip.Addr // requested addresses, at most one of each family
	MAC       ether.MAC    // zero: derived from the address
	MTU       int          // in bytes; 0: the network's
	Verify    verify.Mode  // can only tighten the network's mode; "": the network's mode
	// Default reports whether the interface takes the default routes. nil: each default route
	// that exists stays in place, and each other one goes to the first interface of the
	// request on a network with a gateway.
	Default *bool
	Sysctls []Sysctl // of the interface
}

// ErrUnprivileged means that the process may not change the host's network. Package wiring checks
// that before it opens an attacher of this process, and uses the service's client instead. The client
// returns an error that wraps ErrUnprivileged if no service listens.
var ErrUnprivileged = errors.New("no CAP_NET_ADMIN on the host")
