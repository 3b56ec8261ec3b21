package attach

import (
	"context"
	"slices"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
)

// refreshHostState reads the host's state, and tells the datapath which MACs are this host's. The
// ingress of the trunk program sees frames of siblings only if the parent is the trunk itself, so
// it is not told about siblings on a VLAN.
func (v *verification) refreshHostState(ctx context.Context) (h *hostState, err error) {
	h = &hostState{}
	if h.down, err = v.Host.Down(v.parent); err != nil {
		return nil, err
	}
	if h.macs, err = v.Host.ParentUnicast(v.parent.Index); err != nil {
		return nil, err
	}
	if h.unrecorded, err = v.unrecordedMACs(ctx, h.macs); err != nil {
		return nil, err
	}
	switch {
	case v.unwatched != "":
		return h, nil
	case len(v.parent.Tags) == 0:
		return h, v.tellLocals(h.unrecorded)
	case v.configured:
		return h, v.tellLocals(nil)
	}
	return h, nil // openWindow has reported the parent's MAC
}

// unrecordedMACs returns those of all, the MACs of links on the parent, with addresses that are not
// in the database: they belong neither to an attachment with addresses nor to the host. They are
// macvlans of other programs, macvlans nested in containers, and remains of containers that are
// ending.
func (v *verification) unrecordedMACs(ctx context.Context, all []ether.MAC) (macs []ether.MAC, err error) {
	macs = []ether.MAC{}
	if len(all) == 0 {
		return macs, nil
	}
	own, err := v.hostMACsOn(v.def)
	if err != nil {
		return nil, err
	}
	var known map[ether.MAC]bool
	if err := v.DB.View(ctx, func(tx record.Tx) (err error) {
		known, err = record.MACsWithAddrs(tx, v.parent.TrunkIndex)
		return err
	}); err != nil {
		return nil, err
	}
	for _, mac := range all {
		if mac != v.parent.MAC && !known[mac] && !slices.Contains(own, mac) && !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	return macs, nil
}

// hostMACsOn returns the MACs of the host's own links on the network and, if it shares its parent,
// on all others.
func (l *Local) hostMACsOn(def *network.Definition) ([]ether.MAC, error) {
	defs := []*network.Definition{def}
	if def.ShareParent {
		defs, _ = network.LoadAll(l.Networks)
	}
	return l.HostMACs(defs)
}
