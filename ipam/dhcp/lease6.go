package dhcp

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// maxDUID is the maximum length of a DUID in bytes (RFC 8415 §11.1).
const maxDUID = 130

// A DUID is the identifier of a DHCPv6 server or client. Its text form is hexadecimal digits.
type DUID []byte

// MarshalText implements encoding.TextMarshaler.
func (d DUID) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *DUID) UnmarshalText(text []byte) (err error) {
	*d, err = hex.DecodeString(string(text))
	return err
}

// leaseOf6 reads the lease of an interface in an advertisement or reply. If it has several addresses, it
// takes that of old, or the first one. The prefix length is that of old, else 128: servers send none. Also
// with an error, the lease has the server's identifier, and the address if that is valid.
func leaseOf6(m *dhcpv6.Message, iaid [4]byte, old netip.Prefix, now boottime.Instant) (l Lease, err error) {
	id := m.GetOneOption(dhcpv6.OptionServerID)
	if id == nil || len(id.ToBytes()) < 3 || len(id.ToBytes()) > maxDUID {
		return l, errors.New("sends no server identifier, or a malformed one")
	}
	l.ServerID = id.ToBytes()
	if err := refusal(m.Options.Status()); err != nil {
		return l, err
	}
	ias := m.Options.IANA()
	i := slices.IndexFunc(ias, func(ia *dhcpv6.OptIANA) bool { return ia.IaId == iaid })
	if i < 0 {
		return l, errors.New("sends no addresses for the container (IA_NA)")
	}
	if err := refusal(ias[i].Options.Status()); err != nil {
		return l, err
	}
	a, err := chooseAddr(ias[i].Options.Addresses(), old.Addr())
	if err != nil {
		return l, err
	}
	if l.Addr = netip.PrefixFrom(addrOf6(a), 128); l.Addr.Addr() == old.Addr() {
		l.Addr = old
	}
	l.readNames6(m)
	return l, l.readTimes6(ias[i], a, now)
}

func addrOf6(a *dhcpv6.OptIAAddress) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.IPv6Addr)
	return addr
}

// isHost6 reports whether a server can give the address to a host.
func isHost6(a netip.Addr) bool { return a.IsGlobalUnicast() && a.Is6() && !a.Is4In6() }

// chooseAddr returns the address to take: that of old if it is there, else the first one that a host can
// have. A valid lifetime of 0 ends it (RFC 8415 §18.2.10.1).
func chooseAddr(all []*dhcpv6.OptIAAddress, old netip.Addr) (*dhcpv6.OptIAAddress, error) {
	if len(all) == 0 {
		return nil, errors.New("sends no address")
	}
	var chosen *dhcpv6.OptIAAddress
	var why error
	for _, a := range all {
		addr := addrOf6(a)
		switch {
		case addr == old && a.ValidLifetime == 0:
			why = fmt.Errorf("%w to extend address %s: its valid lifetime is 0", ErrRefused, addr)
		case a.ValidLifetime == 0:
			why = cmp.Or(why, fmt.Errorf("sends address %s with a valid lifetime of 0", addr))
		case !isHost6(addr):
			why = cmp.Or(why, fmt.Errorf("offers address %s, which no host can have", addr))
		case chosen == nil || addr == old:
			chosen = a
		}
	}
	if chosen != nil {
		return chosen, nil
	}
	return nil, why
}

// readNames6 reads name servers and search domains. It leaves out what cannot be in resolv.conf.
func (l *Lease) readNames6(m *dhcpv6.Message) {
	for _, ip := range m.Options.DNS() {
		if a, ok := netip.AddrFromSlice(ip); ok && len(ip) == net.IPv6len && isHost6(a) {
			l.AddServer(a)
		}
	}
	labels := m.Options.DomainSearchList()
	if labels == nil {
		return
	}
	for _, d := range labels.Labels {
		l.AddDomain(d)
	}
}

// infinity is the lifetime of what does not end, and a T1 or T2 at which nothing is to do.
const infinity = math.MaxUint32 * time.Second

// readTimes6 reads the lifetimes of an address, T1 and T2. If T1 and T2 are 0 or do not fit the lifetimes,
// they are 1/2 and 4/5 of the preferred lifetime (RFC 8415 §21.4).
func (l *Lease) readTimes6(ia *dhcpv6.OptIANA, a *dhcpv6.OptIAAddress, now boottime.Instant) error {
	whole, preferred := a.ValidLifetime, a.PreferredLifetime
	switch {
	case preferred > whole:
		return fmt.Errorf("offers address %s, preferred for %s, which is longer than it is valid (%s)", l.Addr.Addr(),
			preferred, whole)
	case whole < minTime:
		return fmt.Errorf("offers a lease of %s: use at least %s", whole, minTime)
	case ia.T1 > ia.T2 && ia.T2 > 0:
		return fmt.Errorf("sends T1 of %s, which is after T2, %s", ia.T1, ia.T2)
	case whole == infinity:
		return nil // it does not end
	}
	t1, t2 := ia.T1, ia.T2
	if t1 < time.Second || t2 < t1 || t2 > whole {
		base := preferred
		if base < minTime {
			base = whole
		}
		t1, t2 = base/2, base/5*4 // in this order: four times 136 years overflow
	}
	l.Renew, l.Rebind, l.Expires = now.Add(t1), now.Add(t2), now.Add(whole)
	l.Deprecated = now.Add(preferred)
	return nil
}
