package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// AnnounceMoved announces the addresses of all attachments on trunks, given by ifindex (0: on all
// trunks), because these are connected to another switch port: the switch has learned the MACs on the
// earlier one. A recent kernel does this itself for the addresses of a macvlan, but not for ipvlans and
// guarded containers. It returns the number of attachments that it has announced.
func (l *Local) AnnounceMoved(ctx context.Context, trunks map[int]bool) (announced int, err error) {
	recs, err := l.Attachments(ctx)
	for _, a := range recs {
		if ctx.Err() != nil {
			return announced, ctx.Err()
		}
		moved := trunks[0] || trunks[a.Endpoint.Trunk]
		for _, f := range hook.Families { // another station may have the address of a lost lease
			if hasLost(&a, f) {
				a.SetServerAddr(f, netip.Prefix{})
			}
		}
		if !moved || a.State != hook.Attached || len(a.Addrs) == 0 || a.Lost != "" {
			continue
		}
		done, aerr := l.announceFromParent(a)
		if aerr != nil {
			err = errors.Join(err, fmt.Errorf("%q on network %q: %w", a.Interface, a.Network, aerr))
		}
		if done {
			announced++
		}
	}
	return announced, err
}

// announceFromParent announces the addresses of one attachment from its parent, once. done is false if
// it is on a network that the host routes, where nothing is announced.
func (l *Local) announceFromParent(a hook.Attachment) (done bool, err error) {
	t := attempt{verification: verification{Local: l, rec: a}}
	def, err := network.Load(l.Networks, a.Network)
	if err != nil || def.Routed() {
		return false, err
	}
	if def.SharesMAC() { // a bond takes the MAC of its new port with fail_over_mac
		p, err := l.Host.ParentAt(a.ParentIdx)
		if err != nil {
			return false, err
		}
		t.rec.MAC = p.MAC
	}
	if _, err := l.Datapath.Evidence(a.Endpoint); err != nil {
		t.unwatched = err.Error()
	}
	err = l.Host.Do(func() error { return t.announceFrom(a.ParentIdx, a.Parent, 1) })
	return err == nil, err
}
