// Package network holds the administrator's definitions of networks: what one
// is, how it is checked, and how it is kept as one JSON file per network.
//
// It knows files and rules only. Which link stands behind a parent's name is
// hook/link's to say; which address a container gets, and which gateway is
// inferred where none was named, is ipam's. A definition always stores the
// gateway that was settled on, so that reading the file tells the whole truth.
package network

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"
)

// Verify says how much a start asks of the wire before it may go on.
type Verify string

const (
	VerifyOff    Verify = "off"    // nothing is sent, nothing is judged
	VerifyWarn   Verify = "warn"   // judged and kept; only harm to others is fatal
	VerifyStrict Verify = "strict" // a silent gateway is fatal as well
)

// Definition is one network. The zero value of every optional field means "the
// default", and is left out of the file.
type Definition struct {
	Name string `json:"name"`
	// ID is the generation: 16 random hexadecimal digits. A network removed and
	// made again under the same name has another one, which is how an attach
	// that was under way can tell.
	ID     string `json:"id"`
	Driver string `json:"driver"`
	// Parent is the host link that carries the network: "eth0", "eth0.50", any
	// link's name.
	Parent string `json:"parent"`
	// VLANProto is the protocol of the outermost tag of a parent that is named
	// BASE.VID: empty for 802.1q.
	VLANProto VLANProto `json:"vlan-proto,omitzero"`
	Mode      Mode      `json:"mode"`
	// Flag is for ipvlan: who reaches whom on one parent. Empty is ModeBridge.
	Flag Mode `json:"flag,omitzero"`
	// Managed says that the parent is a VLAN sub-interface or a dummy that we
	// made, so that we may make it again after a reboot and delete it with the
	// network.
	Managed bool `json:"managed,omitzero"`
	// ShareParent lets the network stand on a parent that carries others.
	ShareParent bool `json:"share-parent,omitzero"`
	// IPAM is IPAMNone for a network that gives links and no addresses.
	IPAM    IPAM     `json:"ipam,omitzero"`
	Subnets []Subnet `json:"subnets,omitempty"`
	// Allocate is empty for AllocateSequential.
	Allocate Allocate `json:"allocate,omitzero"`
	// Internal networks give no default route.
	Internal bool `json:"internal,omitzero"`
	// Routes are given besides the default route.
	Routes []Route `json:"routes,omitempty"`
	// OnLink says that gateways need not be in their subnets: they are on the
	// link all the same.
	OnLink bool `json:"onlink,omitzero"`
	// SourceRouting gives each interface a routing table of its own for what
	// it sends from its addresses: replies leave by where the question came in.
	SourceRouting bool `json:"source-routing,omitzero"`
	// KubernetesNamespaces are those whose pods may ask for the network; "*" is
	// any. Without any, no pod may.
	KubernetesNamespaces []string `json:"kubernetes-namespaces,omitempty"`
	// PodDefaultRoute lets the network take the default route of a pod, which
	// has one of its own.
	PodDefaultRoute bool `json:"pod-default-route,omitzero"`
	// HostAccess gives the host a link of its own on the parent, by which it
	// reaches the containers, and they it.
	HostAccess bool `json:"host-access,omitzero"`
	// HostAddresses are the host's on that link: one in each subnet, which nobody
	// is given.
	HostAddresses []netip.Addr `json:"host-address,omitempty"`
	// MTU in bytes; 0 takes the parent's.
	MTU int `json:"mtu,omitzero"`
	// Verify is empty for VerifyWarn; VerifyMode reads it with the default in.
	Verify Verify `json:"verify,omitzero"`
	// Deadline bounds the wait for a silent gateway.
	Deadline Duration `json:"deadline,omitzero"`
	// ConflictWindow is how long a rival has to object to an address.
	ConflictWindow Duration `json:"conflict-window,omitzero"`
	// Quarantine keeps a released address from other owners for this long.
	Quarantine Duration `json:"quarantine,omitzero"`
	// DNS are the name servers that containers are told of, where their engine
	// tells them of none; DNSSearch are the domains that short names are in.
	DNS       []netip.Addr `json:"dns,omitempty"`
	DNSSearch []string     `json:"dns-search,omitempty"`
	// AllowUsers and AllowGroups name who may attach rootless containers through
	// the broker; nobody but root where both are empty.
	AllowUsers  []string `json:"allow-user,omitempty"`
	AllowGroups []string `json:"allow-group,omitempty"`
	// MaxPerUser bounds each such user's attachments; PerUser has the default.
	MaxPerUser int `json:"max-per-user,omitzero"`
	// Guard is empty for the default; GuardsParent reads it.
	Guard Switch `json:"guard,omitzero"`
	// Brokered is empty for BrokeredGuarded; BrokeredMode has the default.
	Brokered Brokered          `json:"brokered,omitzero"`
	Labels   map[string]string `json:"labels,omitempty"`
	Created  time.Time         `json:"created,omitzero"`
}

// Subnet is one block of addresses on the network.
type Subnet struct {
	// Subnet has no host bits: 192.168.50.0/24.
	Subnet netip.Prefix `json:"subnet"`
	// Gateway is the zero Addr where the subnet has none.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// Ranges limit what is given out; none means all of the subnet.
	Ranges []netip.Prefix `json:"ip-range,omitempty"`
	// Aux names addresses that others hold and that are never given out.
	Aux map[string]netip.Addr `json:"aux-address,omitempty"`
}

// Duration is a time.Duration that reads and writes as "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%s is not a time: write it as 500ms or 1.5s", clip(string(text)))
	}
	*d = Duration(v)
	return nil
}

// VerifyMode is the network's verification mode with the default filled in.
func (d *Definition) VerifyMode() Verify {
	if d.Verify == "" {
		return VerifyWarn
	}
	return d.Verify
}

// NewID makes a generation for a new network.
func NewID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}
