package attach

import (
	"context"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
)

// attempt is the attach of one interface: the request, what was read of the host, and the state of the
// search for an address that no other station has. rec names each resource that the attempt has
// acquired or will acquire.
type attempt struct {
	verification

	r      hook.Request
	self   netns.Process // this process
	want   hook.Want
	caller *hook.Caller // the user without privilege that the attach is for; nil: root

	guarded      bool                        // the attachment is guarded
	subnets      []network.Subnet            // one of each family; rec.Addrs is in the same order
	usedNames    []string                    // interface names that the namespace and the request have
	loopbackOnly bool                        // the namespace had no link but its loopback
	named        []hook.Attachment           // the namespace's records before usedNames was read
	here         []hook.Attachment           // the namespace's records when the intent was written
	checked      hook.Attachment             // the attachment that checkJoined has seen last
	noDefault    map[hook.Family]bool        // default routes that this interface does not get
	renewing     bool                        // the service would renew a lease of a DHCP server
	replacing    hook.Family                 // a running container gets another lease of a DHCP server; 0: it does not
	rowIndex     int                         // replacing: the ifindex in the record, as it was read or written last
	lost         map[hook.Family]*dhcp.Lease // the leases that the attachment had lost before it is made again
	traceStart   int                         // number of steps in the trace before this attach

	joined      bool // the namespace already had the interface
	recorded    bool // rec is in the database
	link        link.Interface
	hostIfindex int // of the host's own link on the network, 0 for none

	hostAddrs     []link.HostAddr // the host's addresses, read when the addresses were claimed
	macBusy       bool            // another link of the parent has the MAC that belongs to the address
	conflicts     int             // number of rounds with a claimant
	seenClaimants []ether.MAC     // those that have claimed a candidate
	pickRandom    bool            // the search for the next candidate starts at a random address
	ending        endingLink
}

// container returns the reference of the container that is attached.
func (t *attempt) container() hook.Container {
	return hook.Container{ID: t.r.Container, Name: t.r.Name, Process: t.ns.Process, By: t.self}
}

// isRequested reports whether the container requested the address.
func (t *attempt) isRequested(a netip.Addr) bool { return slices.Contains(t.want.Addrs, a) }

// mtu returns the MTU that the container requests, else the network's; 0: that of the parent.
func (t *attempt) mtu() int {
	if t.want.MTU != 0 {
		return t.want.MTU
	}
	return t.def.MTU
}

// clusterHasDefault reports whether the default routes of this pod stay those of the cluster.
func (t *attempt) clusterHasDefault() bool { return t.r.Pod.Sandbox != "" && !t.def.PodDefaultRoute }

// reached ends a step of an attach. It is also a failpoint with the name of the step.
func (t *attempt) reached(step string) {
	t.r.Trace.Mark(step)
	failpoint.At(step)
}

// acquire runs f, which acquires what the record names. A detach leaves an intent to its hook, but it can
// remove an attachment at any moment: see [Local.whileAttached].
func (t *attempt) acquire(ctx context.Context, f func() error) error {
	if t.rec.State != hook.Attached {
		return f()
	}
	return t.whileAttached(ctx, &t.rec, func(*hook.Attachment) error { return f() })
}
