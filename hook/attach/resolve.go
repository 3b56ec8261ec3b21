package attach

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/parts"
)

// claimedDefaults returns the families in which an interface without a default-route setting leaves
// the default route alone: both if any interface of the request asks for the default routes.
// attachAll adds the families of default routes that an earlier interface has taken.
func claimedDefaults(r hook.Request) map[hook.Family]bool {
	requested := slices.ContainsFunc(r.Wants, func(w hook.Want) bool { return w.Default != nil && *w.Default })
	return map[hook.Family]bool{hook.IPv4: requested, hook.IPv6: requested}
}

// familiesWithoutDefault returns the families in which the interface gets no default route.
func (t *attempt) familiesWithoutDefault() map[hook.Family]bool {
	both := map[hook.Family]bool{hook.IPv4: true, hook.IPv6: true}
	switch requested := t.want.Default; {
	case t.clusterHasDefault():
		return both // the author of the pod cannot change that
	case requested == nil:
		return maps.Clone(t.noDefault)
	case *requested:
		return nil
	}
	return both
}

// resolve reads what the attach depends on: subnets, parent and the names in the namespace. It
// changes nothing on the host.
func (t *attempt) resolve() (err error) {
	if t.subnets, err = chooseSubnets(t.def, t.want.Addrs); err != nil {
		return err
	}
	t.parent, err = t.Parent(t.def)
	if errors.Is(err, link.ErrNoLink) && t.def.Managed {
		err = nil // prepareLinks creates it, after the intent is recorded
	}
	if err == nil {
		err = t.checkMTU()
	}
	if err != nil {
		return parts.ExplainMissingParent(t.def, err)
	}
	t.renewing = t.def.AsksServers() && t.Renewing()
	return t.readNames()
}

// readNames reads the names that the interface cannot have, unless its name is requested.
func (t *attempt) readNames() (err error) {
	if t.want.Interface != "" {
		return nil
	}
	if t.usedNames, err = t.ns.Links(); err != nil {
		return err
	}
	t.loopbackOnly = len(t.usedNames) == 1
	for _, w := range t.r.Wants {
		t.usedNames = append(t.usedNames, w.Interface) // used by this request
	}
	return nil
}

// minMTU6 is the minimum MTU of IPv6, in bytes (RFC 8200 §5). Below it, the kernel silently turns
// IPv6 off on the interface.
const minMTU6 = 1280

// checkMTU returns an error if the MTU is too small for one of the subnets.
func (t *attempt) checkMTU() error {
	mtu := t.mtu()
	if t.def.TakesRouters() && mtu != 0 && mtu < minMTU6 {
		return fmt.Errorf("MTU %d is too small: IPv6 needs at least %d", mtu, minMTU6)
	}
	for _, s := range t.subnets {
		if s.Subnet.Addr().Is6() && mtu != 0 && mtu < minMTU6 {
			return fmt.Errorf("MTU %d is too small: IPv6 subnet %s needs at least %d", mtu, s.Subnet, minMTU6)
		}
	}
	return nil
}

// mtu returns the MTU that the container requests, else the network's; 0: that of the parent.
func (t *attempt) mtu() int {
	if t.want.MTU != 0 {
		return t.want.MTU
	}
	return t.def.MTU
}
