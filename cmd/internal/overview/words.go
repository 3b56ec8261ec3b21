package overview

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
)

// ShownID is the length to which podman and docker shorten ids.
const ShownID = 12

// Abbreviate shortens an id as podman and docker list it: 64 hexadecimal digits, and what
// the plugins add to them, to ShownID. Other names stay unchanged.
func Abbreviate(id string) string {
	container, _, _ := strings.Cut(id, ":")
	if len(container) != 64 || strings.Trim(container, "0123456789abcdef") != "" {
		return id
	}
	return container[:ShownID]
}

// Printable replaces control characters: container ids and link names are untrusted and must not
// break a line or change the terminal.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// VLAN formats tags for a column: "50", "100.200", "" for none.
func VLAN(t ether.Tags) string {
	if len(t) == 0 {
		return ""
	}
	return strings.TrimPrefix(t.String(), "VLAN ")
}

// FirstAddress returns the first address without its prefix length, "" for an empty list.
func FirstAddress(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return ""
	}
	return prefixes[0].Addr().String()
}

// JoinPrefixes joins addresses by commas.
func JoinPrefixes(prefixes []netip.Prefix) string {
	list := make([]string, len(prefixes))
	for i, p := range prefixes {
		list[i] = p.String()
	}
	return strings.Join(list, ",")
}

// JoinSubnets joins subnets by a separator.
func JoinSubnets(subnets []network.Subnet, comma string) string {
	list := make([]string, len(subnets))
	for i, s := range subnets {
		list[i] = s.Subnet.String()
	}
	return strings.Join(list, comma)
}

// Bytes formats a number of bytes: "3.2 kB".
func Bytes(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	at := 0
	for ; n >= 1000 && at < len(units)-1; at++ {
		n /= 1000
	}
	return strconv.FormatFloat(n, 'g', 3, 64) + " " + units[at]
}

// Rounded formats a duration with three digits, for comparison by eye. JSON has the exact
// value.
func Rounded(d time.Duration) string {
	if d == 0 {
		return ""
	}
	for unit := time.Second; unit > time.Nanosecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}
