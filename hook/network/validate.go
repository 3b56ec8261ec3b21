package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// maxLinkName is the maximum length of a link's name in bytes. It is that of an alternative name:
// ALTIFNAMSIZ (linux/if.h) without the terminating zero.
const maxLinkName = 127

// maxName is the maximum length of a network's name in bytes. The name of its file, with all
// suffixes, must stay below 255.
const maxName = 64

// An MTU below 68 bytes cannot carry IPv4 (RFC 791 §3.2), below 1280 not IPv6 (RFC 8200 §5).
// The maximum is the kernel's ETH_MAX_MTU.
const minMTU4, minMTU6, maxMTU = 68, 1280, 65535

// maxTimeLimit is the maximum of times that delay a container's start. A longer one is a
// typing error.
const maxTimeLimit = time.Minute

var verifyValues = []string{string(verify.Off), string(verify.Warn), string(verify.Strict)}

// ValidName returns an error that says why name cannot be a network's name, or nil. Call it
// before building a path from a name: names come from annotations, which are untrusted.
func ValidName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if len(name) == 0 || len(name) > maxName || !strings.ContainsRune(letters, rune(name[0])) ||
		!consistsOf(name, letters+"_.-") {
		return fmt.Errorf("network name %s: use up to 64 letters, digits, '_', '.' and '-', the first a letter or digit",
			Clip(name))
	}
	return nil
}

func consistsOf(word, letters string) bool { return strings.Trim(word, letters) == "" }

// Clip quotes untrusted text and limits its length to 80 bytes.
func Clip(word string) string {
	if len(word) > 80 {
		return fmt.Sprintf("%q…", word[:80])
	}
	return fmt.Sprintf("%q", word)
}

// Validate returns an error of the form "field: reason" for an invalid definition, or nil.
func (d *Definition) Validate() error {
	if err := ValidName(d.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if len(d.ID) != 16 || !consistsOf(d.ID, "0123456789abcdef") {
		return fmt.Errorf("id: %s is not 16 hexadecimal digits", Clip(d.ID))
	}
	if err := oneOf(string(d.VerifyMode()), verifyValues); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for _, part := range []func() error{d.validDriver, d.validAddressing, d.validSubnets, d.validRouted, d.validRoutes,
		d.validHostAccess, d.validPods} {
		if err := part(); err != nil {
			return err
		}
	}
	if err := d.validMTU(); err != nil {
		return fmt.Errorf("mtu: %w", err)
	}
	if err := d.validDNS(); err != nil {
		return err
	}
	if err := d.validAllow(); err != nil {
		return err
	}
	if value, has := d.Labels[""]; has {
		return fmt.Errorf("labels: %s has no key: give it one", Clip(value))
	}
	return d.validTimes()
}

// validLinkName checks the rules for all links' names. Package hook/link checks the others.
func validLinkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("is missing: name the host link that carries the network, such as %q", "eth0.50")
	case len(name) > maxLinkName:
		return fmt.Errorf("%s has %d bytes: Linux allows %d for a link's name", Clip(name), len(name), maxLinkName)
	case name == "." || name == ".." || strings.ContainsAny(name, "/:% \t\n\v\f\r\x00"):
		return fmt.Errorf("%q cannot be a link's name", name)
	}
	return nil
}

func oneOf(word string, known []string) error {
	if slices.Contains(known, word) {
		return nil
	}
	return fmt.Errorf("%s is not one of %s%s", Clip(word), strings.Join(known, ", "), didYouMean(word, known))
}

func (d *Definition) validSubnets() error {
	for i, s := range d.Subnets {
		if err := s.validate(d.OnLink); err != nil {
			return fmt.Errorf("subnets[%d].%w", i, err)
		}
		for _, before := range d.Subnets[:i] {
			if before.Subnet.Overlaps(s.Subnet) {
				return fmt.Errorf("subnets[%d].subnet: %s overlaps %s", i, s.Subnet, before.Subnet)
			}
		}
	}
	return nil
}

func (d *Definition) validMTU() error {
	least := minMTU4
	if d.TakesRouters() {
		least = minMTU6
	}
	for _, s := range d.Subnets {
		if s.Subnet.Addr().Is6() {
			least = minMTU6
		}
	}
	if d.MTU != 0 && (d.MTU < least || d.MTU > maxMTU) {
		return fmt.Errorf("%d is not between %d and %d", d.MTU, least, maxMTU)
	}
	return nil
}

func (d *Definition) validTimes() error {
	for _, t := range []struct {
		field string
		value Duration
		most  time.Duration
	}{
		{"deadline", d.Deadline, maxTimeLimit},
		{"conflict-window", d.ConflictWindow, maxTimeLimit},
		{"quarantine", d.Quarantine, 24 * time.Hour},
	} {
		if v := time.Duration(t.value); v < 0 || v > t.most {
			return fmt.Errorf("%s: %s is not between 0s and %s", t.field, v, t.most)
		}
	}
	return nil
}

// validate returns errors of the form "field: reason", without the subnet's index.
func (s *Subnet) validate(onLink bool) error {
	if err := validPrefix(s.Subnet); err != nil {
		return fmt.Errorf("subnet: %w", err)
	}
	if err := s.validGateway(onLink); err != nil {
		return err
	}
	for i, r := range s.Ranges {
		if err := validPrefix(r); err != nil {
			return fmt.Errorf("ip-range[%d]: %w", i, err)
		}
		if r.Bits() < s.Subnet.Bits() || !s.Subnet.Contains(r.Addr()) {
			return fmt.Errorf("ip-range[%d]: %s is not within %s", i, r, s.Subnet)
		}
		for _, before := range s.Ranges[:i] {
			if before.Overlaps(r) {
				return fmt.Errorf("ip-range[%d]: %s overlaps %s", i, r, before)
			}
		}
	}
	return s.validAux()
}

func (s *Subnet) validAux() error {
	holder := map[netip.Addr]string{}
	// Sorted, so that the same of several errors is returned each time.
	for _, name := range slices.Sorted(maps.Keys(s.Aux)) {
		a := s.Aux[name]
		if name == "" {
			return fmt.Errorf("aux-address[\"\"]: %s has no name: give it one", a)
		}
		if err := s.checkHost(a); err != nil {
			return fmt.Errorf("aux-address[%s]: %w", Clip(name), err)
		}
		if a == s.Gateway {
			return fmt.Errorf("aux-address[%s]: %s is the gateway", Clip(name), a)
		}
		if other, taken := holder[a]; taken {
			return fmt.Errorf("aux-address[%s]: %s is aux-address %s already", Clip(name), a, Clip(other))
		}
		holder[a] = name
	}
	return nil
}

// checkHost returns an error that says why a cannot be a host's address in the subnet, or nil.
func (s *Subnet) checkHost(a netip.Addr) error {
	if a.Zone() != "" || !s.Subnet.Contains(a) {
		return fmt.Errorf("%s is not in %s", a, s.Subnet)
	}
	// A subnet of two addresses or one has no broadcast address (RFC 3021).
	if !a.Is4() || s.Subnet.Bits() >= 31 {
		return nil
	}
	if a == s.Subnet.Addr() {
		return fmt.Errorf("%s is the address of %s itself", a, s.Subnet)
	}
	if a == broadcast(s.Subnet) {
		return fmt.Errorf("%s is the broadcast address of %s", a, s.Subnet)
	}
	return nil
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func validPrefix(p netip.Prefix) error {
	switch a := p.Addr(); {
	case !p.IsValid():
		return fmt.Errorf("is missing: write it as 192.168.50.0/24")
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4-mapped prefix: write it as IPv4", p)
	case p != p.Masked():
		return fmt.Errorf("%s has host bits set: write %s", p, p.Masked())
	case p.Bits() == 0, a.IsUnspecified():
		return fmt.Errorf("%s is not usable for hosts", p)
	}
	for _, no := range notForHosts {
		if p.Overlaps(no) {
			return fmt.Errorf("%s is not usable for hosts: it overlaps %s", p, no)
		}
	}
	if last := netip.AddrFrom4([4]byte{255, 255, 255, 255}); p.Bits() >= 31 && p.Contains(last) {
		return fmt.Errorf("%s is not usable for hosts: %s is the broadcast address (RFC 919)", p, last)
	}
	return nil
}

// notForHosts are the prefixes of loopback and multicast addresses (RFC 1122 §3.2.1.3,
// RFC 4291 §2.4), and fe80::/10, from which the kernel assigns addresses on every link.
var notForHosts = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// Conflicts returns an error that says why d conflicts with one of the other definitions, or
// nil. The caller passes those with frames on the same trunk with the same tags, which this
// package cannot determine. A definition of the same name is d's previous version and is
// skipped.
//
// Subnets must not overlap. A parent carries one network, unless d shares it, which mode
// passthru does not allow.
func (d *Definition) Conflicts(others []*Definition) error {
	for _, o := range others {
		if o.Name == d.Name {
			continue
		}
		for _, mine := range d.Subnets {
			for _, theirs := range o.Subnets {
				if mine.Subnet.Overlaps(theirs.Subnet) {
					return fmt.Errorf("subnet %s overlaps %s of network %q on the same parent %q", mine.Subnet, theirs.Subnet, o.Name,
						o.Parent)
				}
			}
		}
		switch {
		case o.GuardsParent():
			return fmt.Errorf("parent %q carries network %q already, whose guard would drop the frames of this network's "+
				"containers: use another parent", o.Parent, o.Name)
		case !d.ShareParent:
			return fmt.Errorf("parent %q carries network %q already: use another parent, or --share-parent", o.Parent, o.Name)
		case d.Mode == ModePassthru || o.Mode == ModePassthru:
			return fmt.Errorf("parent %q carries network %q already: mode passthru needs the parent exclusively", o.Parent,
				o.Name)
		case d.GVRP != o.GVRP || d.MVRP != o.MVRP:
			return fmt.Errorf("parent %q carries network %q already: all networks on it must have the same --gvrp and --mvrp",
				o.Parent, o.Name)
		case d.Driver != o.Driver:
			return fmt.Errorf("parent %q carries network %q of driver %s: it cannot carry %s, too", o.Parent, o.Name, o.Driver,
				d.Driver)
		case d.Driver == DriverIPvlan && (d.Mode != o.Mode || d.IPvlanFlag() != o.IPvlanFlag()):
			return fmt.Errorf("parent %q carries network %q in ipvlan mode %s, %s: all networks on it must have the same mode",
				o.Parent, o.Name, o.Mode, o.IPvlanFlag())
		}
	}
	return nil
}
