package network

import (
	"fmt"
	"slices"
	"strings"
)

// What the C library reads of resolv.conf (resolv.h, MAXNS; resolv.conf(5)).
const (
	maxDNS       = 3
	maxDNSSearch = 6
)

// validDNS answers "field: reason". What is written ends up in a file whose
// lines are commands.
func (d *Definition) validDNS() error {
	if len(d.DNS) > maxDNS {
		return fmt.Errorf("dns: %d name servers: %d are looked at", len(d.DNS), maxDNS)
	}
	for i, a := range d.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("dns[%d]: %s is no name server's address", i, clip(a.String()))
		}
	}
	if len(d.DNSSearch) > maxDNSSearch {
		return fmt.Errorf("dns-search: %d domains: %d are looked at", len(d.DNSSearch), maxDNSSearch)
	}
	if i := slices.IndexFunc(d.DNSSearch, badDomain); i >= 0 {
		return fmt.Errorf("dns-search[%d]: %s is no domain", i, clip(d.DNSSearch[i]))
	}
	return nil
}

// badDomain refuses what has no place in the name system (RFC 1035 §2.3.1,
// and the '_' that people use).
func badDomain(name string) bool {
	if name == "" || len(name) > 253 {
		return true
	}
	return slices.ContainsFunc(strings.Split(strings.TrimSuffix(name, "."), "."), func(label string) bool {
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
		return label == "" || len(label) > 63 || label[0] == '-' || !consistsOf(label, letters)
	})
}
