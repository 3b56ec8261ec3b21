package hook

import (
	"fmt"
	"maps"
	"slices"
)

// Sysctl is a setting of one interface that a container requests: Key is that of sysctl(8) with
// IFNAME for the interface's name, such as "net.ipv4.conf.IFNAME.rp_filter".
type Sysctl struct {
	Key   string `json:"key"`
	Value int    `json:"value"`
}

// sysctlRule says what a container may request.
type sysctlRule struct {
	max int // the values are 0 to max
	// routes marks a setting that lets a container pass packets from one of its networks to another.
	routes bool
}

// sysctlRules are the keys that containers may request. They concern the container alone. Not among
// them is what would answer for other stations' addresses (proxy_arp), take addresses and routes that
// Lanyard has not given (accept_ra, autoconf), turn verified addresses off (disable_ipv6,
// accept_dad), or write to the host's log (log_martians).
var sysctlRules = map[string]sysctlRule{
	"net.ipv4.conf.IFNAME.accept_redirects":            {max: 1},
	"net.ipv4.conf.IFNAME.arp_announce":                {max: 2},
	"net.ipv4.conf.IFNAME.arp_filter":                  {max: 1},
	"net.ipv4.conf.IFNAME.arp_ignore":                  {max: 2},
	"net.ipv4.conf.IFNAME.arp_notify":                  {max: 1},
	"net.ipv4.conf.IFNAME.force_igmp_version":          {max: 3},
	"net.ipv4.conf.IFNAME.forwarding":                  {max: 1, routes: true},
	"net.ipv4.conf.IFNAME.ignore_routes_with_linkdown": {max: 1},
	"net.ipv4.conf.IFNAME.rp_filter":                   {max: 2},
	"net.ipv4.conf.IFNAME.secure_redirects":            {max: 1},
	"net.ipv4.conf.IFNAME.send_redirects":              {max: 1},
	"net.ipv4.conf.IFNAME.src_valid_mark":              {max: 1},
	"net.ipv6.conf.IFNAME.accept_redirects":            {max: 1},
	"net.ipv6.conf.IFNAME.force_mld_version":           {max: 2},
	"net.ipv6.conf.IFNAME.forwarding":                  {max: 1, routes: true},
	"net.ipv6.conf.IFNAME.ignore_routes_with_linkdown": {max: 1},
	"net.ipv6.conf.IFNAME.keep_addr_on_down":           {max: 1},
	"net.ipv6.conf.IFNAME.ndisc_notify":                {max: 1},
}

// SysctlKeys returns the keys that containers may request, sorted.
func SysctlKeys() []string { return slices.Sorted(maps.Keys(sysctlRules)) }

// Check returns an error if no container may request the setting, or if pod is true and no pod may:
// its author could connect the LAN to the cluster's network.
func (s Sysctl) Check(pod bool) error {
	rule, known := sysctlRules[s.Key]
	switch {
	case !known:
		return fmt.Errorf("sysctl %.80q cannot be requested", s.Key)
	case s.Value < 0 || s.Value > rule.max:
		return fmt.Errorf("sysctl %s: %d is not a number from 0 to %d", s.Key, s.Value, rule.max)
	case pod && rule.routes:
		return fmt.Errorf("sysctl %s is not for pods: it could connect the LAN to the cluster's network", s.Key)
	}
	return nil
}
