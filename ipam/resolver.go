package ipam

import (
	"net/netip"
	"slices"
	"strings"
)

// Limits of the C library for resolv.conf(5).
const (
	MaxServers = 3
	MaxSearch  = 6
)

// Resolver is what servers or routers of the LAN give for a container's resolv.conf. Each line of that is a
// command, and any station can send anything.
type Resolver struct {
	DNS    []netip.Addr `json:"dns,omitempty"`
	Search []string     `json:"dns_search,omitempty"`
}

// AddServer adds the address of a name server, unless it is there or MaxServers are.
func (r *Resolver) AddServer(a netip.Addr) {
	if len(r.DNS) < MaxServers && !slices.Contains(r.DNS, a) {
		r.DNS = append(r.DNS, a)
	}
}

// AddDomain adds a search domain. It leaves out one that is there or cannot be in resolv.conf, and any after
// MaxSearch.
func (r *Resolver) AddDomain(name string) {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-._"
	name = strings.TrimRight(name, ".\x00")
	isDomain := name != "" && len(name) < 254 && strings.Trim(strings.ToLower(name), letters) == ""
	if isDomain && len(r.Search) < MaxSearch && !slices.Contains(r.Search, name) {
		r.Search = append(r.Search, name)
	}
}

// Add adds what another one has.
func (r *Resolver) Add(other Resolver) {
	for _, a := range other.DNS {
		r.AddServer(a)
	}
	for _, d := range other.Search {
		r.AddDomain(d)
	}
}
