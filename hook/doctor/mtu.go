package doctor

import (
	"context"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// pathMTU checks that packets of a network's full size reach a gateway with this MAC: from a container
// of the network, else from an address of the host on the parent.
func (d *Doctor) pathMTU(
	ctx context.Context, s subject, def *network.Definition, p link.Parent, sub network.Subnet, mac ether.MAC,
) {
	paths, err := d.measure(ctx, def, p, sub, mac)
	if s.addErr("mtu", err) {
		return
	}
	if len(paths) == 0 {
		s.add(OK, "mtu", "not known: the host has no address in %s to ask %s from: run \"lanyard verify --mtu\" when "+
			"a container runs", sub.Subnet, sub.Gateway)
	}
	for _, path := range paths {
		state := OK
		switch {
		case path.Short():
			state = Wrong
		case path.Fragment != 0 || path.Lossy:
			state = Warning
		}
		s.add(state, "mtu", "%s", path.Text)
	}
}

func (d *Doctor) measure(
	ctx context.Context, def *network.Definition, p link.Parent, sub network.Subnet, mac ether.MAC,
) ([]verify.PathMTU, error) {
	recs, err := d.Attachments(ctx)
	if err != nil || def.Routed() {
		return nil, err
	}
	at := slices.IndexFunc(recs, func(a hook.Attachment) bool {
		return a.Network == def.Name && a.State == hook.Attached && slices.Contains(a.Gateways, sub.Gateway)
	})
	if at >= 0 {
		return d.PathMTUs(ctx, recs[at], map[netip.Addr]ether.MAC{sub.Gateway: mac}, false)
	}
	own, err := d.Host.HostAddrs()
	if err != nil {
		return nil, err
	}
	at = slices.IndexFunc(own, func(a link.HostAddr) bool { return a.Index == p.Index && sub.Subnet.Contains(a.Addr) })
	if at < 0 {
		return nil, nil
	}
	path, err := d.HostPathMTU(ctx, p, verify.Ends{Source: p.MAC, Destination: mac, From: own[at].Addr, To: sub.Gateway})
	return []verify.PathMTU{path}, err
}
