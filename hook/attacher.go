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
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
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

// State is how far an attachment has come.
type State string

const (
	Attaching State = "attaching" // an intent: what it names may be half made
	Attached  State = "attached"
	Detaching State = "detaching" // being taken back: nobody may join it any more
)

// Attachment is one interface of one network namespace: what the containers
// there got, and the record that undo works from. It is written before
// anything is acquired, so that a crash leaves something to sweep.
type Attachment struct {
	ID         verify.ID        `json:"id"`
	State      State            `json:"state"`
	Network    string           `json:"network"`
	Generation string           `json:"generation"`       // the definition's id
	Driver     string           `json:"driver,omitempty"` // "" is macvlan
	Interface  string           `json:"interface"`
	Index      int              `json:"ifindex,omitzero"` // inside the namespace
	MAC        verify.MAC       `json:"mac"`
	MTU        int              `json:"mtu,omitzero"`
	Addrs      []netip.Prefix   `json:"addresses"`
	Gateways   []netip.Addr     `json:"gateways,omitempty"`
	Defaults   []netip.Addr     `json:"default_via,omitempty"`     // those of Gateways that the default routes go by; 0.0.0.0 or :: is the host itself
	Others     []OtherDefault   `json:"default_left_to,omitempty"` // default routes of others' that stay where they are, and that nobody said to take
	Pools      []string         `json:"pools"`                     // where its leases are
	Quarantine time.Duration    `json:"quarantine_ns,omitzero"`
	Parent     string           `json:"parent"`
	ParentIdx  int              `json:"parent_ifindex"`
	Trunk      string           `json:"trunk"`
	Endpoint   verify.Endpoint  `json:"endpoint"`         // its key is set before the datapath is told
	Former     *verify.Endpoint `json:"former,omitempty"` // what the interface was before the wire said that its address is taken
	Netns      Netns            `json:"netns"`
	Number     *int             `json:"nsid,omitempty"` // while the namespace lives; nil where nobody gave it one
	Hook       link.Process     `json:"hook"`           // who attaches or takes back; until it is Attached the record is that process's
	Containers []Container      `json:"containers"`
	Mode       verify.Mode      `json:"verify"`
	Verdict    verify.Verdict   `json:"verdict"`
	Verdicts   []verify.Verdict `json:"verdicts,omitempty"` // one for each gateway
	Evidence   *verify.Evidence `json:"evidence,omitempty"` // as it was when the verdict was drawn
	Created    time.Time        `json:"created"`
	Timing     []Step           `json:"timing,omitempty"` // up to the commit, where the attach was traced
	Pod        Pod              `json:"pod,omitzero"`
	Guard      *verify.Guard    `json:"guard,omitempty"`            // set where it is guarded; its links, once they are made
	AtParent   bool             `json:"guarded_at_parent,omitzero"` // the parent's egress lets out what carries its lease
	HostLink   string           `json:"host_link,omitempty"`        // the host's own, by which it has a route to each address
	Owner      uint32           `json:"owner_uid,omitzero"`         // whose rootless container it is for; 0 for root's
}

// Netns tells a network namespace from every other one, dead or alive.
type Netns struct {
	Boot   string `json:"boot"`             // kernel's boot id
	Cookie uint64 `json:"cookie,omitempty"` // SO_NETNS_COOKIE; 0 below Linux 5.14
	Inode  uint64 `json:"inode"`            // recycled: means something only with the rest
}

// Container is a reference to an attachment: it lives while its init does.
type Container struct {
	ID      string       `json:"id"`
	Name    string       `json:"name,omitempty"`
	Process link.Process `json:"process"`
}

// ErrUnprivileged is returned by Attach and Detach when the caller may not
// change the host's network: the hook then turns to the broker.
var ErrUnprivileged = errors.New("no CAP_NET_ADMIN on the host")
