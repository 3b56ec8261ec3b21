package dhcp

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// Limits of what a server may set.
const (
	// minTime is the shortest lease. It must be renewed at half of it, and a server that is busy must
	// not cost the container its address.
	minTime   = 10 * time.Second
	minMTU    = 68 // RFC 791 §3.2
	maxRoutes = 64
)

// classlessMicrosoft is the code under which some servers send option 121.
var classlessMicrosoft = dhcpv4.GenericOptionCode(249)

// Given is what the network's definition says, and a server need not.
type Given struct {
	Subnet netip.Prefix // zero: the server's
	OnLink bool         // routers may be outside of the subnet
}

// leaseOf reads the lease in an offer or acknowledgement. Its errors name the option and its value.
func leaseOf(m *dhcpv4.DHCPv4, given Given, now boottime.Instant) (l Lease, err error) {
	addr, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	if !ok || !isHost(addr) {
		return l, fmt.Errorf("offers address %s, which no host can have", m.YourIPAddr)
	}
	if l.Server, err = addrOption(m, dhcpv4.OptionServerIdentifier, "server identifier"); err != nil {
		return l, err
	}
	if l.Addr, err = prefixOf(m, addr, given); err != nil {
		return l, err
	}
	if err = l.readRouters(m, given); err != nil {
		return l, err
	}
	if err = l.readMTU(m); err != nil {
		return l, err
	}
	l.readNames(m)
	return l, l.readTimes(m, now)
}

// isHost reports whether a host can have the address.
func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] != 0 && a.As4()[0] < 240
}

// addrOption returns the address in an option.
func addrOption(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode, name string) (a netip.Addr, err error) {
	b := m.Options.Get(code)
	if b == nil {
		return a, fmt.Errorf("sends no %s", name)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok || len(b) != 4 || !isHost(a) {
		return a, fmt.Errorf("sends %s 0x%s, which is not the address of a host", name, hexOf(b))
	}
	return a, nil
}

// prefixOf returns the address with the length of the subnet that it is in.
func prefixOf(m *dhcpv4.DHCPv4, addr netip.Addr, given Given) (p netip.Prefix, err error) {
	bits := given.Subnet.Bits()
	if !given.Subnet.IsValid() {
		b := m.Options.Get(dhcpv4.OptionSubnetMask)
		if b == nil {
			return p, errors.New("sends no subnet mask")
		}
		if bits, err = maskBits(b); err != nil {
			return p, err
		}
	}
	p = netip.PrefixFrom(addr, bits)
	if bits < 31 && (addr == p.Masked().Addr() || addr == last(p)) {
		return p, fmt.Errorf("offers address %s, which no host can have in subnet %s", addr, p.Masked())
	}
	return p, nil
}

// maskBits returns the prefix length of a subnet mask.
func maskBits(b []byte) (int, error) {
	var mask uint32
	for _, x := range b {
		mask = mask<<8 | uint32(x)
	}
	bits := 0
	for m := mask; m&(1<<31) != 0; m <<= 1 {
		bits++
	}
	if len(b) != 4 || bits == 0 || mask<<bits != 0 {
		return 0, fmt.Errorf("sends 0x%s as subnet mask", hexOf(b))
	}
	return bits, nil
}

// last returns the highest address of an IPv4 prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// readRouters reads the gateway and the routes. If there are classless routes, the router option is
// ignored (RFC 3442).
func (l *Lease) readRouters(m *dhcpv4.DHCPv4, given Given) error {
	b := m.Options.Get(dhcpv4.OptionClasslessStaticRoute)
	if b == nil {
		b = m.Options.Get(classlessMicrosoft)
	}
	if b != nil {
		return l.readRoutes(b, given)
	}
	if b = m.Options.Get(dhcpv4.OptionRouter); b == nil {
		return nil
	}
	var routers dhcpv4.IPs
	if err := routers.FromBytes(b); err != nil {
		return fmt.Errorf("sends routers 0x%s, which are no addresses", hexOf(b))
	}
	l.Gateway, _ = netip.AddrFromSlice(routers[0].To4())
	return l.checkRouter("gateway", l.Gateway, given)
}

// readRoutes reads the option for classless routes, which may have the default route.
func (l *Lease) readRoutes(b []byte, given Given) error {
	var routes dhcpv4.Routes
	if err := routes.FromBytes(b); err != nil || len(routes) > maxRoutes {
		return fmt.Errorf("sends classless routes 0x%s…, which are none, or more than %d", hexOf(b), maxRoutes)
	}
	for _, r := range routes {
		ones, _ := r.Dest.Mask.Size()
		dst, _ := netip.AddrFromSlice(r.Dest.IP.To4())
		via, _ := netip.AddrFromSlice(r.Router.To4())
		to := netip.PrefixFrom(dst, ones).Masked()
		switch {
		case via.IsUnspecified() && ones == 0:
			return errors.New("sends a default route without a gateway")
		case via.IsUnspecified():
			via = netip.Addr{}
		default:
			if err := l.checkRouter(fmt.Sprintf("router of %s", to), via, given); err != nil {
				return err
			}
		}
		switch {
		case ones == 0:
			l.Gateway = via
		case to == l.Addr.Masked(), slices.ContainsFunc(l.Routes, func(have Route) bool { return have.Dst == to }):
		default:
			l.Routes = append(l.Routes, Route{to, via})
		}
	}
	// Their order means nothing, and another order in a renewal is no change.
	slices.SortFunc(l.Routes, func(a, b Route) int { return a.Dst.Compare(b.Dst) })
	return nil
}

// checkRouter returns an error if an address cannot be that of a router on the link.
func (l *Lease) checkRouter(what string, a netip.Addr, given Given) error {
	switch {
	case !isHost(a):
		return fmt.Errorf("sends %s %s, which no host can have", what, a)
	case a == l.Addr.Addr():
		return fmt.Errorf("offers address %s, which is also the %s", a, what)
	case !given.OnLink && !l.Addr.Masked().Contains(a):
		return fmt.Errorf("sends %s %s, which is outside of subnet %s: correct the server, or create the network with "+
			"--onlink", what, a, l.Addr.Masked())
	}
	return nil
}

func (l *Lease) readMTU(m *dhcpv4.DHCPv4) error {
	b := m.Options.Get(dhcpv4.OptionInterfaceMTU)
	if b == nil {
		return nil
	}
	if len(b) == 2 {
		l.MTU = int(b[0])<<8 | int(b[1])
	}
	if l.MTU < minMTU {
		return fmt.Errorf("sends MTU 0x%s: use at least %d", hexOf(b), minMTU)
	}
	return nil
}

// readNames reads name servers and search domains. It leaves out what cannot be in resolv.conf: the
// container works without.
func (l *Lease) readNames(m *dhcpv4.DHCPv4) {
	for _, ip := range dhcpv4.GetIPs(dhcpv4.OptionDomainNameServer, m.Options) {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && isHost(a) {
			l.AddServer(a)
		}
	}
	domains := []string{string(m.Options.Get(dhcpv4.OptionDomainName))}
	if b := m.Options.Get(dhcpv4.OptionDNSDomainSearchList); b != nil {
		if labels, err := rfc1035label.FromBytes(b); err == nil {
			domains = labels.Labels
		}
	}
	for _, d := range domains {
		l.AddDomain(d)
	}
}

// readTimes reads the lease time, T1 and T2. If T1 and T2 are missing or do not fit the lease time,
// they are 1/2 and 7/8 of it (RFC 2131 §4.4.5).
func (l *Lease) readTimes(m *dhcpv4.DHCPv4, now boottime.Instant) error {
	b := m.Options.Get(dhcpv4.OptionIPAddressLeaseTime)
	if b == nil {
		return errors.New("sends no lease time")
	}
	whole, ok := seconds(b)
	if !ok || whole < minTime {
		return fmt.Errorf("offers a lease of 0x%s seconds: use at least %d", hexOf(b), int(minTime.Seconds()))
	}
	if whole == math.MaxUint32*time.Second {
		return nil // it does not end
	}
	t1, ok1 := seconds(m.Options.Get(dhcpv4.OptionRenewTimeValue))
	t2, ok2 := seconds(m.Options.Get(dhcpv4.OptionRebindingTimeValue))
	if !ok1 || !ok2 || t1 < time.Second || t1 > t2 || t2 > whole {
		t1, t2 = whole/2, whole/8*7 // in this order: seven times 68 years overflow
	}
	l.Renew, l.Rebind, l.Expires = now.Add(t1), now.Add(t2), now.Add(whole)
	return nil
}

// seconds returns the time in an option, false if the option is malformed.
func seconds(b []byte) (time.Duration, bool) {
	if len(b) != 4 {
		return 0, false
	}
	return time.Duration(uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3])) * time.Second, true
}
