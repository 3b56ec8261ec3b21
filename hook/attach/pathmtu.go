package attach

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// pingTarget is a station, with what is needed to measure the path to it: a gateway, or a sibling.
type pingTarget struct {
	verify.Ends
	sibling string
}

// PathMTUs measures which packets of an attachment's interface reach gateways, given with the MACs that
// they have answered from, and, with sibling, one other container of its network. It returns nothing
// without any of them, or if the kernel routes the network's packets.
func (l *Local) PathMTUs(
	ctx context.Context, a hook.Attachment, gateways map[netip.Addr]ether.MAC, sibling bool,
) (paths []verify.PathMTU, err error) {
	def, err := network.Load(l.Networks, a.Network)
	if err != nil || def.Routed() {
		return nil, err
	}
	parent, err := l.Host.ParentAt(a.ParentIdx)
	if err != nil {
		return nil, err
	}
	if def.SharesMAC() {
		a.MAC = parent.MAC // which may have changed since the start
	}
	targets := gatewayTargets(&a, gateways)
	if sibling {
		s, err := l.siblingTarget(ctx, def, &a)
		if err != nil {
			return nil, err
		}
		targets = append(targets, s...)
	}
	if len(targets) == 0 {
		return nil, err
	}
	ns, err := l.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
	if err != nil || ns == nil {
		return nil, err
	}
	defer ns.Close()
	i, _, err := ns.LinkAt(a.Index)
	if err != nil || i == nil {
		return nil, err
	}
	v := &verification{Local: l, def: def, ns: ns, rec: a, parent: parent}
	err = v.onProbeLink(func(index int, _ string) error {
		for _, t := range targets {
			path, err := l.pathMTU(ctx, index, t, i.MTU)
			if err != nil {
				return err
			}
			paths = append(paths, path.Describe(v.parent.Tags, v.parent.Trunk))
		}
		return nil
	})
	return paths, err
}

// HostPathMTU measures which packets of a parent's own MTU reach a gateway. It sends them from an
// address that the host has on the parent.
func (l *Local) HostPathMTU(ctx context.Context, p link.Parent, ends verify.Ends) (path verify.PathMTU, err error) {
	err = l.Host.Do(func() error {
		path, err = l.pathMTU(ctx, p.Index, pingTarget{Ends: ends}, p.MTU)
		return err
	})
	return path.Describe(p.Tags, p.Trunk), err
}

// pathMTU measures one path. It must run inside the namespace of the link with that ifindex.
func (l *Local) pathMTU(ctx context.Context, index int, t pingTarget, mtu int) (path verify.PathMTU, err error) {
	pinger, err := l.Probers.Pinger(index, t.Ends)
	if err != nil {
		return path, err
	}
	defer func() { err = errors.Join(err, pinger.Close()) }()
	path, err = verify.MeasureMTU(ctx, pinger, mtu)
	path.To, path.Sibling = t.To, t.sibling
	return path, err
}

// gatewayTargets returns the attachment's gateways with a MAC.
func gatewayTargets(a *hook.Attachment, gateways map[netip.Addr]ether.MAC) (targets []pingTarget) {
	for _, g := range a.Gateways {
		mac, from := gateways[g], addressNear(a, g)
		if !mac.IsZero() && from.IsValid() {
			targets = append(targets, pingTarget{Ends: verify.Ends{Source: a.MAC, Destination: mac, From: from, To: g}})
		}
	}
	return targets
}

// siblingTarget returns another container of the network that a's frames can reach on this host.
func (l *Local) siblingTarget(
	ctx context.Context, def *network.Definition, a *hook.Attachment,
) (targets []pingTarget, err error) {
	// Frames from the parent do not reach the interfaces on it, nor those of mode private each other.
	if driver.Of(l.Parts, a).AsksFromParent() || def.Mode == network.ModePrivate {
		return nil, nil
	}
	recs, err := l.Attachments(ctx)
	for _, s := range recs {
		if s.ID == a.ID || s.Network != a.Network || s.State != hook.Attached || len(s.Containers) == 0 || len(s.Addrs) == 0 {
			continue
		}
		to := s.Addrs[0].Addr()
		if from := addressNear(a, to); from.IsValid() {
			ends := verify.Ends{Source: a.MAC, Destination: s.MAC, From: from, To: to}
			return []pingTarget{{ends, s.Containers[0].ID}}, nil
		}
	}
	return nil, err
}

// addressNear returns the attachment's address in the subnet of another station.
func addressNear(a *hook.Attachment, to netip.Addr) netip.Addr {
	at := slices.IndexFunc(a.Addrs, func(p netip.Prefix) bool { return p.Contains(to) })
	if at < 0 {
		return netip.Addr{}
	}
	return a.Addrs[at].Addr()
}
