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
	maxWants = 8
	maxID    = 256 // bytes; engines' ids have 64
)

// validate says what is wrong with a request that was not made by Parse: one
// that came over a socket, from anybody. Ids become keys of the database, where
// NUL ends a word; names become paths.
func (r *Request) validate() error {
	if err := validID(r.Container); err != nil {
		return err
	}
	if len(r.Name) > maxID || !printable(r.Name) {
		return fmt.Errorf("container name %s: use up to %d printable characters", clip(r.Name), maxID)
	}
	if r.Pid <= 0 {
		return fmt.Errorf("container %q: %d is no process id", r.Container, r.Pid)
	}
	if len(r.Wants) == 0 || len(r.Wants) > maxWants {
		return fmt.Errorf("container %q asks for %d networks: 1 to %d can be had at once", r.Container, len(r.Wants), maxWants)
	}
	for i := range r.Wants {
		if err := r.Wants[i].validate(); err != nil {
			return fmt.Errorf("container %q: %w", r.Container, err)
		}
	}
	if err := compatible(r.Wants); err != nil {
		return fmt.Errorf("container %q: %w", r.Container, err)
	}
	return nil
}

func validID(id string) error {
	if id == "" || len(id) > maxID || !printable(id) {
		return fmt.Errorf("container id %s: use 1 to %d printable characters", clip(id), maxID)
	}
	return nil
}

// printable allows ASCII from space to tilde.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func clip(word string) string {
	if len(word) > 80 {
		return fmt.Sprintf("%q…", word[:80])
	}
	return fmt.Sprintf("%q", word)
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
	if w.MTU != 0 && (w.MTU < minMTU || w.MTU > maxMTU) {
		return fmt.Errorf("%d is not an MTU: use a number of bytes from %d to %d", w.MTU, minMTU, maxMTU)
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
