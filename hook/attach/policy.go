package attach

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// loadNetwork loads the definition of the requested network. It returns an error if the caller or the
// pod may not use the network as requested.
func (t *attempt) loadNetwork() (err error) {
	if t.def, err = network.Load(t.Networks, t.want.Network); err != nil {
		if t.caller != nil {
			err = refuseCaller("%w", err)
		}
		return err
	}
	if err := authorize(t.caller, t.def, t.want); err != nil {
		return err
	}
	if err := mayUse(t.def, t.r.Pod); err != nil {
		return err
	}
	for _, s := range t.want.Sysctls {
		if err := s.Check(t.r.Pod != (hook.Pod{})); err != nil {
			return err
		}
	}
	t.guarded, err = needsGuard(t.caller, t.def)
	return err
}

// mayUse returns an error if the network does not list the Kubernetes namespace of the pod: any
// author of a pod can set io.lanyard. annotations. The engine names the Kubernetes namespace, not
// the author (hook/oci, originOf).
func mayUse(def *network.Definition, p hook.Pod) error {
	if p == (hook.Pod{}) || p.Namespace != "" && def.MayPod(p.Namespace) {
		return nil
	}
	return fmt.Errorf("pods of the Kubernetes namespace %q may not use it: list the namespace (--allow-namespace)",
		p.Namespace)
}

// authorize returns an error if the network does not allow the caller, or not this interface. A nil
// caller is root, which may do everything.
func authorize(c *hook.Caller, def *network.Definition, w hook.Want) error {
	if c == nil {
		return nil
	}
	ok, err := def.Allows(c.UID, c.GIDs)
	if !ok {
		hint := errors.New("see its allow-user and allow-group")
		return refuseCaller("network %q does not allow uid %d: %w", def.Name, c.UID, errors.Join(err, hint))
	}
	// A chosen MAC may be that of a gateway or of a server that is down: the switch would send
	// its frames to the container.
	if !w.MAC.IsZero() {
		return errors.New("a rootless container cannot choose its MAC: omit io.lanyard.mac")
	}
	for _, a := range w.Addrs {
		for _, s := range def.Subnets {
			// Addresses outside the ranges belong to other stations of the LAN.
			if s.Subnet.Contains(a) && !inRanges(s, a) {
				return fmt.Errorf("address %s is outside the ranges of network %q: a rootless container cannot request it",
					a, def.Name)
			}
		}
	}
	return nil
}

// inRanges reports whether the network assigns the address.
func inRanges(s network.Subnet, a netip.Addr) bool {
	return len(s.Ranges) == 0 || slices.ContainsFunc(s.Ranges, func(r netip.Prefix) bool { return r.Contains(a) })
}

// needsGuard reports whether the caller's attachment to a network is guarded. It returns an error
// if it has to be, but the network's IPAM mode or driver mode does not allow it.
func needsGuard(c *hook.Caller, def *network.Definition) (bool, error) {
	if c == nil || def.BrokeredMode() == network.BrokeredDirect {
		return false, nil
	}
	if !def.HasLeases() {
		return false, fmt.Errorf("a network without IPAM cannot be guarded, because there is no lease to enforce: "+
			"use another network for rootless containers, or one with --brokered %s", network.BrokeredDirect)
	}
	// The guard needs a MAC of the attachment's own, and this mode uses that of the parent.
	if def.SharesMAC() {
		return false, fmt.Errorf("mode %s cannot be guarded: use another network for rootless containers, "+
			"or one with --brokered %s", def.Mode, network.BrokeredDirect)
	}
	return true, nil
}
