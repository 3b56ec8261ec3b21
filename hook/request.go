package hook

import (
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Limits of one request.
const (
	MaxWants = 8   // interfaces
	MaxID    = 256 // bytes of a container's id or name; engines' ids have 64
)

// MinMTU and MaxMTU limit an interface's MTU, in bytes. IPv4 needs at least 68 (RFC 791 §3.2), and
// 65535 is the maximum of the kernel.
const MinMTU, MaxMTU = 68, 65535

// Validate returns an error if a request is invalid. It is for requests that a caller without
// privilege sends over a socket; package oci checks those that it decodes. Ids become keys of the
// database, in which NUL ends a word, and names become parts of paths.
func (r *Request) Validate() error {
	if err := ValidID(r.Container); err != nil {
		return err
	}
	if len(r.Name) > MaxID || !Printable(r.Name) {
		return fmt.Errorf("container name %s: use up to %d printable characters", network.Clip(r.Name), MaxID)
	}
	if r.Netns != "" {
		return fmt.Errorf("container %q: only root can name a network namespace by its path", r.Container)
	}
	if r.Pid <= 0 {
		return fmt.Errorf("container %q: %d is not a process id", r.Container, r.Pid)
	}
	if len(r.Wants) == 0 || len(r.Wants) > MaxWants {
		return fmt.Errorf("container %q requests %d networks: request 1 to %d", r.Container, len(r.Wants), MaxWants)
	}
	for i := range r.Wants {
		if err := r.Wants[i].Validate(); err != nil {
			return fmt.Errorf("container %q: %w", r.Container, err)
		}
	}
	if err := Compatible(r.Wants); err != nil {
		return fmt.Errorf("container %q: %w", r.Container, err)
	}
	return nil
}

// ValidID returns an error if a container's id is empty, too long or not printable.
func ValidID(id string) error {
	if id == "" || len(id) > MaxID || !Printable(id) {
		return fmt.Errorf("container id %s: use 1 to %d printable characters", network.Clip(id), MaxID)
	}
	return nil
}

// Printable reports whether s consists of ASCII characters from space to tilde.
func Printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Validate returns an error if any field of w is invalid.
func (w *Want) Validate() error {
	if err := network.ValidName(w.Network); err != nil {
		return err
	}
	if w.Interface != "" {
		if err := link.ValidName(w.Interface); err != nil {
			return err
		}
	}
	if w.Verify != "" {
		if _, err := verify.ParseMode(string(w.Verify)); err != nil {
			return err
		}
	}
	if !w.MAC.IsZero() && !w.MAC.IsUnicast() {
		return notUnicast(w.MAC)
	}
	if w.MTU != 0 && (w.MTU < MinMTU || w.MTU > MaxMTU) {
		return fmt.Errorf("%d is not an MTU: use a number of bytes from %d to %d", w.MTU, MinMTU, MaxMTU)
	}
	return validAddrs(w.Addrs)
}

// SetMAC sets the MAC that is requested. It returns an error unless that is a unicast address: the zero MAC would
// request none.
func (w *Want) SetMAC(text string) error {
	if err := w.MAC.UnmarshalText([]byte(text)); err != nil {
		return err
	}
	if !w.MAC.IsUnicast() {
		return notUnicast(w.MAC)
	}
	return nil
}

func notUnicast(m ether.MAC) error {
	return fmt.Errorf("%q is not a unicast MAC address: use one such as 02:42:c0:a8:32:02", m.Hardware())
}

// Requestable reports whether a container can request the address: it is unicast, without a zone and not
// IPv4-mapped (::ffff:a.b.c.d). The unspecified address would request none.
func Requestable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
}

// validAddrs returns an error if there are two addresses of one family, or one that is not Requestable.
func validAddrs(addrs []netip.Addr) error {
	seen := map[Family]bool{}
	for _, a := range addrs {
		if !Requestable(a) {
			return fmt.Errorf("%q is not an address such as 192.168.50.9 or fd50::9", a)
		}
		if seen[FamilyOf(a)] {
			return fmt.Errorf("%s is the second address of its family: request one", a)
		}
		seen[FamilyOf(a)] = true
	}
	return nil
}

// Family is an address family.
type Family int

const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Compatible returns an error if one namespace cannot have all of the interfaces: two have the same
// name, two unnamed ones are on one network, or two request the default route.
func Compatible(wants []Want) error {
	interfaces, networks := map[string]string{}, map[string]bool{}
	owner := ""
	for _, w := range wants {
		if other, used := interfaces[w.Interface]; used && w.Interface != "" {
			return fmt.Errorf("interface %q is requested on network %q and on network %q: choose another name for one",
				w.Interface, other, w.Network)
		}
		if networks[w.Network] && w.Interface == "" {
			return fmt.Errorf("network %q is listed twice: name a different interface for each", w.Network)
		}
		interfaces[w.Interface] = w.Network
		networks[w.Network] = true
		if w.Default == nil || !*w.Default {
			continue
		}
		if owner != "" {
			return fmt.Errorf("network %q and network %q both request the default route: set it for one only", owner, w.Network)
		}
		owner = w.Network
	}
	return nil
}
