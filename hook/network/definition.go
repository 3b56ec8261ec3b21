// Package network defines, validates and stores the administrator's definitions of networks,
// as one JSON file for each network.
//
// It handles files and rules only. Package hook/link finds the link of a parent's name.
// Package ipam chooses a container's address, and the gateway if none is given. A definition
// always stores the chosen gateway, so that the file is complete.
package network

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// Definition is one network. The zero value of an optional field means the default, and is
// omitted from the file.
type Definition struct {
	Name string `json:"name"`
	// ID is the generation: 16 random hexadecimal digits. A network that is deleted and
	// recreated under the same name gets another one, so that an attach in progress
	// detects it.
	ID     string `json:"id"`
	Driver string `json:"driver"`
	// Parent is the host link that carries the network: "eth0", "eth0.50", any
	// link's name.
	Parent string `json:"parent"`
	// VLANProto is the protocol of the outermost tag of a parent that is named
	// BASE.VID: empty for 802.1q.
	VLANProto VLANProto `json:"vlan-proto,omitzero"`
	// GVRP and MVRP have the kernel announce the parent's VLAN to the switch, so that it
	// adds the VLAN to its port, if Lanyard creates the parent.
	GVRP bool `json:"gvrp,omitzero"`
	MVRP bool `json:"mvrp,omitzero"`
	Mode Mode `json:"mode"`
	// Flag is for ipvlan: it controls traffic between links on one parent. Empty:
	// ModeBridge.
	Flag Mode `json:"flag,omitzero"`
	// Managed marks a parent that is a VLAN or a dummy that we created. We recreate it
	// after a reboot and delete it with the network.
	Managed bool `json:"managed,omitzero"`
	// ShareParent allows a parent that carries other networks.
	ShareParent bool `json:"share-parent,omitzero"`
	// IPAM is IPAMNone for a network without address management, and IPAMDHCP for addresses
	// from the DHCP servers of the LAN.
	IPAM    IPAM     `json:"ipam,omitzero"`
	Subnets []Subnet `json:"subnets,omitempty"`
	// IPv6Mode is empty for IPv6Leased.
	IPv6Mode IPv6Mode `json:"ipv6-mode,omitzero"`
	// IPv6Addresses is empty for IPv6EUI64.
	IPv6Addresses IPv6Form `json:"ipv6-addresses,omitzero"`
	// Leases is empty for leases in this host's database.
	Leases LeaseStore `json:"leases,omitzero"`
	// OnOutage is empty for OnOutageRefuse; HostSlice is for OnOutageSlice.
	OnOutage  OnOutage  `json:"on-outage,omitzero"`
	HostSlice HostSlice `json:"host-slice,omitzero"`
	// Allocate is empty for AllocateSequential.
	Allocate Allocate `json:"allocate,omitzero"`
	// MACFrom is empty for MACFromHost.
	MACFrom MACFrom `json:"mac-from,omitzero"`
	// Internal networks have no default route.
	Internal bool `json:"internal,omitzero"`
	// Routes are added besides the default route.
	Routes []Route `json:"routes,omitempty"`
	// OnLink allows gateways outside of their subnets, which are on the link nevertheless.
	OnLink bool `json:"onlink,omitzero"`
	// SourceRouting gives each interface its own routing table for packets from its
	// addresses, so that replies leave by the interface that the request arrived on.
	SourceRouting bool `json:"source-routing,omitzero"`
	// KubernetesNamespaces lists the namespaces with pods that may use the network. "*"
	// allows the pods of every namespace. Empty: no pods.
	KubernetesNamespaces []string `json:"kubernetes-namespaces,omitempty"`
	// PodDefaultRoute lets the network replace a pod's default route, which is the
	// cluster's.
	PodDefaultRoute bool `json:"pod-default-route,omitzero"`
	// HostAccess gives the host its own link on the parent, so that the host and the
	// containers reach each other.
	HostAccess bool `json:"host-access,omitzero"`
	// HostAddresses are the host's addresses on that link: one in each subnet. They are
	// never leased.
	HostAddresses []netip.Addr `json:"host-address,omitempty"`
	// MTU is in bytes. 0: the parent's.
	MTU int `json:"mtu,omitzero"`
	// Verify is empty for verify.Warn; VerifyMode returns it with the default.
	Verify verify.Mode `json:"verify,omitzero"`
	// Deadline is the maximum wait for a silent gateway, a silent DHCP server, and an address from a
	// router.
	Deadline Duration `json:"deadline,omitzero"`
	// ConflictWindow is how long a claimant has to answer for an address.
	ConflictWindow Duration `json:"conflict-window,omitzero"`
	// Quarantine is how long a released address is not leased to another owner.
	Quarantine Duration `json:"quarantine,omitzero"`
	// DNS are the name servers for containers if their engine sets none; DNSSearch are
	// the search domains.
	DNS       []netip.Addr `json:"dns,omitempty"`
	DNSSearch []string     `json:"dns-search,omitempty"`
	// AllowUsers and AllowGroups name the users that may attach rootless containers
	// through the service. Both empty: root only.
	AllowUsers  []string `json:"allow-user,omitempty"`
	AllowGroups []string `json:"allow-group,omitempty"`
	// MaxPerUser is each such user's maximum of attachments; PerUser returns the default.
	MaxPerUser int `json:"max-per-user,omitzero"`
	// Guard is empty for the default, which GuardsParent determines.
	Guard Switch `json:"guard,omitzero"`
	// Brokered is empty for BrokeredGuarded; BrokeredMode returns it with the default.
	Brokered Brokered          `json:"brokered,omitzero"`
	Labels   map[string]string `json:"labels,omitempty"`
	Created  time.Time         `json:"created,omitzero"`
}

// Subnet is one block of addresses on the network.
type Subnet struct {
	// Subnet has no host bits: 192.168.50.0/24.
	Subnet netip.Prefix `json:"subnet"`
	// Gateway is the zero Addr if the subnet has no gateway.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// Ranges limit the addresses that are leased. Empty: the whole subnet.
	Ranges []netip.Prefix `json:"ip-range,omitempty"`
	// Aux names addresses of other stations, which are never leased.
	Aux map[string]netip.Addr `json:"aux-address,omitempty"`
}

// Duration is a time.Duration with the text form "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%s is not a time: write it as 500ms or 1.5s", Clip(string(text)))
	}
	*d = Duration(v)
	return nil
}

// VerifyMode returns Verify, or the default if that is empty.
func (d *Definition) VerifyMode() verify.Mode {
	if d.Verify == "" {
		return verify.Warn
	}
	return d.Verify
}

// NewID returns a new random generation for a network.
func NewID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}
