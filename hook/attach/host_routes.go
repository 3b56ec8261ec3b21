package attach

import (
	"context"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// routeFromHost adds the host's routes to the new attachment. Its record already names the
// host's link.
func (t *attempt) routeFromHost(ctx context.Context) error {
	if t.hostIfindex == 0 {
		return nil
	}
	err := t.acquire(ctx, func() error { return t.addHostRoutes(t.def, t.hostIfindex, &t.rec) })
	if err != nil {
		return err
	}
	t.reached("host")
	return nil
}

// addHostRoutes adds a host route to each address of an attachment, through the host's own link
// with an ifindex.
func (l *Local) addHostRoutes(def *network.Definition, index int, a *hook.Attachment) error {
	for _, p := range a.Addrs {
		for _, s := range def.Subnets {
			if !s.Subnet.Contains(p.Addr()) {
				continue
			}
			if err := l.Host.RouteHost(index, p.Addr(), def.HostAddress(s)); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeHostRoutes removes the host's routes to an attachment.
func (l *Local) removeHostRoutes(a hook.Attachment) error {
	if a.HostLink == "" {
		return nil
	}
	return l.Host.UnrouteHost(a.HostLink, a.Addresses())
}
