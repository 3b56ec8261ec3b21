package doctor

import (
	"context"
	"errors"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// carried is a parent with the networks on it.
type carried struct {
	spec link.ParentSpec
	defs []*network.Definition
}

// links checks parents, the trunks below them, and the networks on them. only is the name of the one
// parent to check, or "".
func (d *Doctor) links(ctx context.Context, r *results, defs []*network.Definition, only string) {
	trunks := map[int]*lldp.Neighbour{}
	var checked []*network.Definition
	for _, c := range carriedBy(defs, only) {
		p, usable := d.link(ctx, r, c, trunks)
		for _, def := range c.defs {
			d.network(ctx, r.about("network "+def.Name), def, p, usable)
		}
		checked = append(checked, c.defs...)
	}
	d.others(ctx, r, checked, defs)
}

// Links checks the parents of networks and the trunks below them, as Check does. It asks no gateway, and
// listens for no LLDP frame.
func (d *Doctor) Links(ctx context.Context, defs []*network.Definition) []Result {
	var r results
	trunks := map[int]*lldp.Neighbour{}
	for _, c := range carriedBy(defs, "") {
		d.link(ctx, &r, c, trunks)
		for _, def := range c.defs {
			d.checkIPv6(r.about("network "+def.Name), def)
		}
	}
	return r.list
}

// carriedBy returns the parents with their networks. only is the name of the one parent, or "".
func carriedBy(defs []*network.Definition, only string) (list []*carried) {
	if only != "" {
		list = append(list, &carried{spec: link.ParentSpec{Name: only}})
	}
	for _, def := range defs {
		spec := parts.SpecOf(def)
		at := slices.IndexFunc(list, func(c *carried) bool { return c.spec.Name == spec.Name })
		switch {
		case at >= 0:
			list[at].spec = spec
			list[at].defs = append(list[at].defs, def)
		case only == "":
			list = append(list, &carried{spec, []*network.Definition{def}})
		}
	}
	return list
}

// link checks a parent and, unless it is in seen, its trunk. usable says that frames can pass.
func (d *Doctor) link(
	ctx context.Context, r *results, c *carried, seen map[int]*lldp.Neighbour,
) (p link.Parent, usable bool) {
	s := r.about("parent " + c.spec.Name)
	p, usable = d.parent(s, c)
	if p.Index != 0 && !c.spec.Dummy {
		d.cards(ctx, s, r.about("trunk "+p.Trunk), c, p, seen)
	}
	for _, def := range c.defs {
		d.hostLink(ctx, r.about("network "+def.Name), def)
	}
	return p, usable
}

// hostLink checks who manages the host's own link on a network, if it has one.
func (d *Doctor) hostLink(ctx context.Context, s subject, def *network.Definition) {
	if !def.HostAccess {
		return
	}
	own, _, err := d.Host.FindHostLink(def.HostLink())
	if s.addErr("manager", err) || own == nil {
		return
	}
	f, err := d.facts(ctx, own.Index)
	if !s.addErr("manager", err) {
		f.checkManagers(s, true)
	}
}

// cards checks what the host knows of a parent and, once, of its trunk.
func (d *Doctor) cards(ctx context.Context, s, t subject, c *carried, p link.Parent, seen map[int]*lldp.Neighbour) {
	trunk, err := d.facts(ctx, p.TrunkIndex)
	if s.addErr("mtu", err) {
		return
	}
	checkMTU(s, p, trunk.mtu, c.defs)
	if p.Index != p.TrunkIndex && p.Name == c.spec.Name {
		f, err := d.facts(ctx, p.Index)
		if !s.addErr("manager", err) {
			f.checkManagers(s, p.Ours)
		}
	}
	n, done := seen[p.TrunkIndex]
	if !done {
		trunk.check(t, c.defs)
		n = d.neighbour(ctx, t, p)
		seen[p.TrunkIndex] = n
	}
	if n != nil && p.Name == c.spec.Name {
		checkPort(s, *n, p)
	}
}

// facts reads the facts of a link of the host.
func (d *Doctor) facts(ctx context.Context, index int) (f facts, err error) {
	err = d.Host.Do(func() error {
		f, err = readFacts(ctx, index)
		return err
	})
	return f, err
}

// parent checks that a parent exists and can carry its networks. usable says that frames can pass.
// If the parent is created later, p is the link below it.
func (d *Doctor) parent(s subject, c *carried) (p link.Parent, usable bool) {
	p, err := d.Host.Resolve(c.spec)
	if errors.Is(err, link.ErrNoLink) && (len(c.defs) == 0 || c.defs[0].Managed) {
		return d.below(s, c, err), false
	}
	if s.addErr("link", err) {
		return p, false
	}
	why, err := d.Host.Down(p)
	switch {
	case s.addErr("carrier", err):
	case why != "":
		s.add(Wrong, "carrier", "%s: check cable and switch port, or set the link up", why)
	default:
		s.add(OK, "carrier", "up, %s on trunk %q", p.Tags, p.Trunk)
		usable = true
	}
	return p, usable
}

// below checks the link on which a missing parent can be created.
func (d *Doctor) below(s subject, c *carried, missing error) link.Parent {
	base, vid, err := link.ParseParent(c.spec.Name)
	if err != nil || vid == 0 {
		s.add(Wrong, "link", "%v", missing)
		return link.Parent{}
	}
	p, err := d.Host.Resolve(link.ParentSpec{Name: base, Outer: c.spec.Outer})
	switch {
	case s.addErr("link", err):
	case len(c.defs) > 0:
		s.add(Warning, "link", "VLAN %d on %q does not exist: \"lanyard restore\", or the next container, creates it",
			vid, base)
	default:
		s.add(OK, "link", "\"network create\" creates VLAN %d on %q", vid, base)
	}
	return p
}

// checkMTU compares the MTU of a parent with those of its networks and its trunk.
func checkMTU(s subject, p link.Parent, trunk int, defs []*network.Definition) {
	state := OK
	for _, def := range defs {
		if def.MTU > p.MTU {
			state = Wrong
			s.add(Wrong, "mtu", "network %q has MTU %d, and its parent %d: larger frames are lost: set the parent's MTU, "+
				"or recreate the network with a smaller one", def.Name, def.MTU, p.MTU)
		}
	}
	if inner := len(p.Tags) - 1; inner > 0 && p.MTU > trunk-4*inner {
		state = Warning
		s.add(Warning, "mtu", "%d bytes and %d tags are more than a frame of trunk %q (MTU %d) has room for: many cards "+
			"and switches drop it: set MTU %d, or raise the trunk's", p.MTU, len(p.Tags), p.Trunk, trunk, trunk-4*inner)
	}
	if state == OK {
		s.add(OK, "mtu", "%d", p.MTU)
	}
}
