package network

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of the C library for resolv.conf (resolv.h, MAXNS; resolv.conf(5)).
const (
	maxDNS       = 3
	maxDNSSearch = 6
)

// validDNS returns errors of the form "field: reason". The values become part of
// resolv.conf, where each line is a command.
func (d *Definition) validDNS() error {
	if len(d.DNS) > maxDNS {
		return fmt.Errorf("dns: %d name servers: resolvers use at most %d", len(d.DNS), maxDNS)
	}
	for i, a := range d.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("dns[%d]: %s is not a name server's address", i, Clip(a.String()))
		}
	}
	if len(d.DNSSearch) > maxDNSSearch {
		return fmt.Errorf("dns-search: %d domains: resolvers use at most %d", len(d.DNSSearch), maxDNSSearch)
	}
	if i := slices.IndexFunc(d.DNSSearch, badDomain); i >= 0 {
		return fmt.Errorf("dns-search[%d]: %s is not a domain name", i, Clip(d.DNSSearch[i]))
	}
	return nil
}

// badDomain reports whether name is not a domain name (RFC 1035 §2.3.1, and '_', which is
// in common use).
func badDomain(name string) bool {
	if name == "" || len(name) > 253 {
		return true
	}
	return slices.ContainsFunc(strings.Split(strings.TrimSuffix(name, "."), "."), func(label string) bool {
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
		return label == "" || len(label) > 63 || label[0] == '-' || !consistsOf(label, letters)
	})
}
