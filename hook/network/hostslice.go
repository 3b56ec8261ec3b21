package network

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
)

// OnOutage selects what a new container on a network with Leases gets while their store is out of
// reach. Empty: OnOutageRefuse.
type OnOutage string

const (
	OnOutageRefuse OnOutage = "refuse" // nothing: its start fails
	OnOutageSlice  OnOutage = "slice"  // an address of HostSlice, which the store keeps for this host
)

var onOutageValues = []string{string(OnOutageRefuse), string(OnOutageSlice)}

// HostSlice is part Number of Hosts equal parts of a range, from 1. The zero value means no part.
// Its text form is "2/8".
type HostSlice struct{ Number, Hosts int64 }

// maxHosts is the maximum number of parts of a range.
const maxHosts = 4096

// MarshalText implements encoding.TextMarshaler.
func (s HostSlice) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String returns "2/8".
func (s HostSlice) String() string { return fmt.Sprintf("%d/%d", s.Number, s.Hosts) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *HostSlice) UnmarshalText(text []byte) error {
	number, hosts, _ := strings.Cut(string(text), "/")
	n, err := strconv.ParseInt(number, 10, 64)
	h, herr := strconv.ParseInt(hosts, 10, 64)
	if err != nil || herr != nil || n < 1 || n > h || h > maxHosts {
		return fmt.Errorf("%s is not NUMBER/HOSTS, such as 2/8 for the second of 8 hosts (at most %d)", Clip(string(text)),
			maxHosts)
	}
	*s = HostSlice{n, h}
	return nil
}

// Of returns the part of p: the addresses with the offsets from size*(Number-1)/Hosts, rounded down,
// up to but without size*Number/Hosts, as the fewest prefixes. It returns none if p has fewer
// addresses than Hosts.
func (s HostSlice) Of(p netip.Prefix) (own []netip.Prefix) {
	hostBits := uint(p.Addr().BitLen() - p.Bits())
	size := new(big.Int).Lsh(big.NewInt(1), hostBits)
	if size.Cmp(big.NewInt(s.Hosts)) < 0 {
		return nil
	}
	bound := func(n int64) *big.Int {
		b := new(big.Int).Mul(size, big.NewInt(n))
		return b.Div(b, big.NewInt(s.Hosts))
	}
	first := new(big.Int).SetBytes(p.Addr().AsSlice())
	for from, end := bound(s.Number-1), bound(s.Number); from.Cmp(end) < 0; {
		left := new(big.Int).Sub(end, from)
		bits := uint(left.BitLen() - 1) // the largest power of two that is left, and that from is aligned to
		if from.Sign() > 0 {
			bits = min(bits, from.TrailingZeroBits())
		}
		raw := new(big.Int).Add(first, from).FillBytes(make([]byte, p.Addr().BitLen()/8))
		a, _ := netip.AddrFromSlice(raw) // it has the length of an address
		own = append(own, netip.PrefixFrom(a, p.Addr().BitLen()-int(bits)))
		from.Add(from, new(big.Int).Lsh(big.NewInt(1), bits))
	}
	return own
}

// OfSubnet returns the part of each range of a subnet; a subnet without ranges is one range. It
// returns an error if a range has fewer addresses than there are hosts.
func (s HostSlice) OfSubnet(subnet Subnet) (own []netip.Prefix, err error) {
	whole := subnet.Ranges
	if len(whole) == 0 {
		whole = []netip.Prefix{subnet.Subnet}
	}
	for _, p := range whole {
		some := s.Of(p)
		if len(some) == 0 {
			return nil, fmt.Errorf("%s: %s has fewer than %d addresses", s, p, s.Hosts)
		}
		own = append(own, some...)
	}
	return own, nil
}

// Share returns the part of a subnet's ranges that this host may use while the store of leases is
// out of reach; none without OnOutageSlice.
func (d *Definition) Share(s Subnet) []netip.Prefix {
	if d.OnOutage != OnOutageSlice {
		return nil
	}
	own, _ := d.HostSlice.OfSubnet(s) // Validate has checked it
	return own
}

// validOnOutage checks on-outage and host-slice.
func (d *Definition) validOnOutage() error {
	if d.OnOutage != "" {
		if err := oneOf(string(d.OnOutage), onOutageValues); err != nil {
			return fmt.Errorf("on-outage: %w", err)
		}
	}
	given := d.HostSlice != HostSlice{}
	switch {
	case d.OnOutage != "" && d.Leases == "":
		return fmt.Errorf("on-outage: %q needs leases %q: this host's database is always in reach", d.OnOutage,
			LeasesEtcd)
	case d.OnOutage == OnOutageSlice && !given:
		return fmt.Errorf("on-outage: %q needs a host-slice, such as 2/8 for the second of 8 hosts", d.OnOutage)
	case given && d.OnOutage != OnOutageSlice:
		return fmt.Errorf("host-slice: needs on-outage %q: hosts that keep their own leases divide the range by ip-range",
			OnOutageSlice)
	case !given:
		return nil
	case d.HostSlice.Number < 1 || d.HostSlice.Number > d.HostSlice.Hosts || d.HostSlice.Hosts > maxHosts:
		return errors.New("host-slice: write it as 2/8")
	}
	for i, s := range d.Subnets {
		if validPrefix(s.Subnet) != nil {
			continue // validSubnets says so
		}
		if _, err := d.HostSlice.OfSubnet(s); err != nil {
			return fmt.Errorf("subnets[%d]: host-slice %w", i, err)
		}
	}
	return nil
}
