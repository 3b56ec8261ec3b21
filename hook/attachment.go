package hook

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/verify"
)

// State is the stage of an attachment.
type State string

const (
	Attaching State = "attaching" // an intent: the resources that it names may be incomplete
	Attached  State = "attached"
	Detaching State = "detaching" // being released: no container can join it
)

// Attachment is the record of one interface in one network namespace: its configuration, and all
// that undo needs. It is written before any resource is acquired, so that a sweep can release
// what a crash leaves.
type Attachment struct {
	ID         verify.ID `json:"id"`
	State      State     `json:"state"`
	Network    string    `json:"network"`
	Generation string    `json:"generation"`       // the definition's id
	Driver     string    `json:"driver,omitempty"` // "" is macvlan
	Interface  string    `json:"interface"`
	Index      int       `json:"ifindex,omitzero"` // inside the namespace
	MAC        ether.MAC `json:"mac"`
	MTU        int       `json:"mtu,omitzero"`
	// MTURequested is the MTU of the network or of the container's annotation; 0: the parent's.
	MTURequested int      `json:"mtu_requested,omitzero"`
	Sysctls      []Sysctl `json:"sysctls,omitempty"` // that the container requested for the interface

	Addrs    []netip.Prefix `json:"addresses"`
	Gateways []netip.Addr   `json:"gateways,omitempty"`
	Defaults []netip.Addr   `json:"default_via,omitempty"` // next hops of its default routes; unspecified: the host
	// DefaultRoute is the container's default-route setting; nil: it has none.
	DefaultRoute *bool            `json:"default_route,omitempty"`
	Others       []OtherDefault   `json:"default_left_to,omitempty"` // see OtherDefault
	Pools        []string         `json:"pools"`                     // the pools of its leases
	DHCP         *dhcp.Lease      `json:"dhcp,omitempty"`            // the server's lease of its address; nil without one
	DHCP6        *dhcp.Lease      `json:"dhcp6,omitempty"`           // the same for its IPv6 address
	SLAAC        *SLAAC           `json:"slaac,omitempty"`           // nil: it takes no router advertisements
	Quarantine   time.Duration    `json:"quarantine_ns,omitzero"`
	Parent       string           `json:"parent"`
	ParentIdx    int              `json:"parent_ifindex"`
	Trunk        string           `json:"trunk"`
	Endpoint     verify.Endpoint  `json:"endpoint"`         // recorded before Datapath.Expect
	Former       *verify.Endpoint `json:"former,omitempty"` // the old endpoint, while address or MAC change
	Netns        Netns            `json:"netns"`
	Number       *int             `json:"nsid,omitempty"` // valid while the namespace exists; nil if it has none
	Hook         netns.Process    `json:"hook"`           // owns the record unless the state is Attached
	Containers   []Container      `json:"containers"`
	Mode         verify.Mode      `json:"verify"`
	Verdict      verify.Verdict   `json:"verdict"`
	Verdicts     []verify.Verdict `json:"verdicts,omitempty"` // one for each gateway
	Evidence     *verify.Evidence `json:"evidence,omitempty"` // at the time of the verdict
	// Latest is the verdict of a later verification; nil if none has found another code than the start.
	Latest   *Later        `json:"latest,omitempty"`
	Created  time.Time     `json:"created"`
	Timing   []Step        `json:"timing,omitempty"` // of the steps up to the commit, if the attach was traced
	Pod      Pod           `json:"pod,omitzero"`
	Guard    *verify.Guard `json:"guard,omitempty"`            // nil if it is not guarded; its links' ifindexes
	AtParent bool          `json:"guarded_at_parent,omitzero"` // it has a permit in the guard of the parent
	HostLink string        `json:"host_link,omitempty"`        // the host's link, with a route to each address
	Owner    uint32        `json:"owner_uid,omitzero"`         // the user of the rootless container; 0 for root

	Leases network.LeaseStore `json:"leases,omitempty"`     // the store that has Pools
	Lost   string             `json:"lease_lost,omitempty"` // why it does not hold its addresses any more; "" if it does
	// Pending are those of its addresses that are from this host's share of the range, and that the store
	// does not have yet, because it was out of reach. An intent has them here before they are in Addrs.
	Pending []netip.Addr `json:"lease_pending,omitempty"`
}

// Later is the worst verdict of a verification after the start.
type Later struct {
	At      time.Time      `json:"at"` // when this code was found first
	Verdict verify.Verdict `json:"verdict"`
}

// LastVerdict returns the verdict of the start or, if a later verification has found another code, that
// one. since is when the code was found first.
func (a *Attachment) LastVerdict() (v verify.Verdict, since time.Time) {
	if a.Latest != nil {
		return a.Latest.Verdict, a.Latest.At
	}
	return a.Verdict, a.Created
}

// SLAAC says what an interface takes from router advertisements besides its addresses, which come and
// go: they are not recorded.
type SLAAC struct {
	Default bool `json:"default_route"` // the routers' default route
	// Managed is set if its IPv6 address is from a DHCPv6 server, and none from routers.
	Managed bool `json:"managed,omitzero"`
	// SecretName is the name that the secret of its addresses is derived from (RFC 7217). It outlives the
	// container with that name.
	SecretName    string `json:"secret_name,omitzero"`
	ipam.Resolver        // that routers had advertised at the start
}

// IsAutoconf reports whether routers give the interface addresses.
func (a *Attachment) IsAutoconf() bool { return a.SLAAC != nil && !a.SLAAC.Managed }

// Families are the address families, in the order of an attachment's addresses.
var Families = []Family{IPv4, IPv6}

// ServerLease returns the lease of a DHCP server for a family; nil without one.
func (a *Attachment) ServerLease(f Family) *dhcp.Lease {
	if f == IPv6 {
		return a.DHCP6
	}
	return a.DHCP
}

// SetServerLease sets the lease of a DHCP server for a family, without its address.
func (a *Attachment) SetServerLease(f Family, l *dhcp.Lease) {
	if f == IPv6 {
		a.DHCP6 = l
		return
	}
	a.DHCP = l
}

// SetServerAddr replaces the address of a family; the zero Prefix removes it.
func (a *Attachment) SetServerAddr(f Family, p netip.Prefix) {
	addrs := slices.DeleteFunc(slices.Clone(a.Addrs), func(has netip.Prefix) bool { return FamilyOf(has.Addr()) == f })
	switch {
	case !p.IsValid():
	case f == IPv4:
		addrs = append([]netip.Prefix{p}, addrs...)
	default:
		addrs = append(addrs, p)
	}
	a.Addrs = addrs
}

// Netns identifies a network namespace among all existing and earlier ones.
type Netns struct {
	Boot   string `json:"boot"`             // the kernel's boot id
	Cookie uint64 `json:"cookie,omitempty"` // SO_NETNS_COOKIE; 0 below Linux 5.14
	Inode  uint64 `json:"inode"`            // recycled by the kernel: valid only together with the other fields
}

// Container is a reference to an attachment. It is valid while the container's init runs, or, without
// a process, while the interface is in the namespace.
type Container struct {
	ID      string        `json:"id"`
	Name    string        `json:"name,omitempty"`
	Process netns.Process `json:"process,omitzero"` // zero: see Request.Netns
	// By is the process that has added the reference. Only this process removes it if its request
	// fails: another one may have joined for the same container since.
	By netns.Process `json:"by,omitzero"`
}

// ByPath reports whether the runtime named the container's namespace by its path, and no process.
func (c Container) ByPath() bool { return c.Process == netns.Process{} }

// Exited reports whether the container's init has exited. A container without a process does not
// exit: its runtime detaches it.
func (c Container) Exited() bool { return !c.ByPath() && !netns.Alive(c.Process) }

// String returns "namespace/name".
func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// Addresses returns the addresses of Addrs, without the lengths of their prefixes.
func (a *Attachment) Addresses() []netip.Addr {
	addrs := make([]netip.Addr, len(a.Addrs))
	for i, p := range a.Addrs {
		addrs[i] = p.Addr()
	}
	return addrs
}

// OfPod reports whether the attachment belongs to a pod.
func (a *Attachment) OfPod() bool { return a.Pod.Sandbox != "" }

// ByPath reports whether the attachment has a container without a process.
func (a *Attachment) ByPath() bool { return slices.ContainsFunc(a.Containers, Container.ByPath) }

// WithNetns reports whether the attachment exists until a container deletes its interface or the
// namespace ends, instead of as long as a process runs.
func (a *Attachment) WithNetns() bool { return a.OfPod() || a.ByPath() }

// InUse reports whether the init of any of the attachment's containers runs.
func (a *Attachment) InUse() bool {
	return slices.ContainsFunc(a.Containers, func(c Container) bool { return !c.ByPath() && netns.Alive(c.Process) })
}

// LogAttrs returns what a log says of an attachment: pairs of keys and values.
func (a *Attachment) LogAttrs() []any {
	var containers []string
	for _, c := range a.Containers {
		containers = append(containers, c.ID)
	}
	return []any{"network", a.Network, "containers", containers, "interface", a.Interface, "parent", a.Parent,
		"attachment", a.ID}
}

// ErrGone is returned if the record to change does not exist any more, because a sweep has removed
// it.
var ErrGone = errors.New("attachment is gone from the database")

// OtherDefault is a default route of another manager, such as the engine's own network, that an
// attachment left in place because default-route was not set.
type OtherDefault struct {
	To        netip.Prefix `json:"to"`           // 0.0.0.0/0 or ::/0, or the lower half of it
	Via       netip.Addr   `json:"via,omitzero"` // not set if the route has no next hop
	Interface string       `json:"interface"`
}
