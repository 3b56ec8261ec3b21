package hook

import (
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// What one request may ask for.
const (
	MaxWants = 8
	MaxID    = 256 // bytes; engines' ids have 64
)

// Below 68 bytes IPv4 does not run (RFC 791 §3.2); above 65535 nothing does.
const MinMTU, MaxMTU = 68, 65535

// validate says what is wrong with a request that was not made by Parse: one
// that came over a socket, from anybody. Ids become keys of the database, where
// NUL ends a word; names become paths.
func (r *Request) validate() error {
	if err := validID(r.Container); err != nil {
		return err
	}
	if len(r.Name) > MaxID || !Printable(r.Name) {
		return fmt.Errorf("container name %s: use up to %d printable characters", network.Clip(r.Name), MaxID)
	}
	if r.Pid <= 0 {
		return fmt.Errorf("container %q: %d is no process id", r.Container, r.Pid)
	}
	if len(r.Wants) == 0 || len(r.Wants) > MaxWants {
		return fmt.Errorf("container %q asks for %d networks: 1 to %d can be had at once", r.Container, len(r.Wants), MaxWants)
	}
	for i := range r.Wants {
		if err := r.Wants[i].validate(); err != nil {
			return fmt.Errorf("container %q: %w", r.Container, err)
		}
	}
	if err := Compatible(r.Wants); err != nil {
		return fmt.Errorf("container %q: %w", r.Container, err)
	}
	return nil
}

func validID(id string) error {
	if id == "" || len(id) > MaxID || !Printable(id) {
		return fmt.Errorf("container id %s: use 1 to %d printable characters", network.Clip(id), MaxID)
	}
	return nil
}

// Printable allows ASCII from space to tilde.
func Printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func (w *Want) validate() error {
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
	if !w.MAC.IsZero() && w.MAC[0]&1 != 0 {
		return fmt.Errorf("%q is not a unicast MAC address: its first byte must be even", w.MAC)
	}
	if w.MTU != 0 && (w.MTU < MinMTU || w.MTU > MaxMTU) {
		return fmt.Errorf("%d is not an MTU: use a number of bytes from %d to %d", w.MTU, MinMTU, MaxMTU)
	}
	return validAddrs(w.Addrs)
}

// validAddrs allows one address of each family, in its only spelling.
func validAddrs(addrs []netip.Addr) error {
	seen := map[bool]bool{} // by Is4
	for _, a := range addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("%q is not an address such as 192.168.50.9 or fd50::9", a)
		}
		if seen[a.Is4()] {
			return fmt.Errorf("%s is the second address of its family: ask for one", a)
		}
		seen[a.Is4()] = true
	}
	return nil
}

// Compatible refuses what one namespace cannot have.
func Compatible(wants []Want) error {
	interfaces, networks := map[string]string{}, map[string]bool{}
	owner := ""
	for _, w := range wants {
		if other, taken := interfaces[w.Interface]; taken && w.Interface != "" {
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
