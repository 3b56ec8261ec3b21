package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
)

// releaseParent removes what a network that is being removed has on its parent: the trunk program, if
// no other network is on the trunk, the guard and the host's own link. name is the parent's name now
// if the parent is to be deleted: it is managed, and no other network needs it.
func (l *Admin) releaseParent(def *network.Definition, n *siblings) (name string, err error) {
	p, missing := l.Parent(def)
	if missing != nil && def.Managed {
		renamed, err := l.Host.FindRenamed(parts.SpecOf(def))
		if err != nil {
			return "", err
		}
		if renamed != nil {
			p, missing = *renamed, nil
		}
	}
	if err := l.releaseTrunks(p, missing != nil, n); err != nil {
		return "", err
	}
	if missing != nil {
		return "", l.releaseMissing(def, n)
	}
	if def.GuardsParent() && !n.guarded[p.Index] {
		if err := l.Guards.UnguardParent(p.Index); err != nil {
			return "", err
		}
	}
	if def.HostAccess {
		if err := l.Host.RemoveHostLink(def.HostLink()); err != nil {
			return "", err
		}
	}
	// If another network is on a VLAN of the parent, the parent is deleted with that network.
	if def.Managed && !n.inUse[p.Index] && len(l.withSameTags(def, p, n)) == 0 && !n.hasVLANOn(def.Parent) {
		name = p.Name
	}
	return name, nil
}

// releaseMissing removes what a network has on a parent that is gone, or has another name now. It
// returns an error if a link that Lanyard created belongs to no network: it may be that parent.
func (l *Admin) releaseMissing(def *network.Definition, n *siblings) error {
	if def.HostAccess {
		if err := l.Host.RemoveHostLink(def.HostLink()); err != nil {
			return err
		}
	}
	needed := l.neededLinks(n)
	if err := l.freeGuards(def, needed); err != nil || !def.Managed {
		return err
	}
	// A network that is still being created has not had its parent.
	if begun, err := network.Begun(l.Networks, def.Name); begun != nil || err != nil {
		return err
	}
	name, err := l.unneededLink(needed)
	if err != nil || name == "" {
		return err
	}
	return fmt.Errorf("its parent %q is gone, and link %q, which Lanyard created, belongs to no network: "+
		"if that is the parent under another name, delete it (\"ip link del %s\")", def.Parent, name, name)
}

// findLinksInUse fills in inUse and guarded of n. The definitions do not name all parents: one may
// be invalid while its containers run.
func (l *Admin) findLinksInUse(ctx context.Context, n *siblings) error {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return err
	}
	n.inUse, n.guarded = map[int]bool{}, map[int]bool{}
	parents := map[int]bool{}
	for _, a := range recs {
		n.guarded[a.ParentIdx] = n.guarded[a.ParentIdx] || a.AtParent
		if a.ParentIdx == 0 || parents[a.ParentIdx] {
			continue // 0: an attach that has no parent yet
		}
		parents[a.ParentIdx], n.inUse[a.ParentIdx] = true, true
		p, err := l.Host.ParentAt(a.ParentIdx)
		if err != nil && !errors.Is(err, link.ErrNoLink) {
			return err
		}
		for _, index := range p.Chain {
			n.inUse[index] = true
		}
	}
	return nil
}

// neededLinks returns the ifindexes of the networks' parents and of the links below them, and those
// that containers use.
func (l *Admin) neededLinks(n *siblings) map[int]bool {
	needed := maps.Clone(n.inUse)
	for _, o := range n.byName {
		if q, err := l.Parent(o); err == nil {
			for _, index := range q.Chain {
				needed[index] = true
			}
		}
	}
	return needed
}

// unneededLink returns the name of a link that Lanyard created and that is not in needed; "" for none.
func (l *Admin) unneededLink(needed map[int]bool) (name string, err error) {
	created, err := l.Host.Created()
	for _, p := range created {
		if !needed[p.Index] {
			return p.Name, nil
		}
	}
	return "", err
}

// freeGuards removes the guards of parents that no network needs, if the network guards its parent:
// they would drop all frames of a parent that has another name now.
func (l *Admin) freeGuards(def *network.Definition, needed map[int]bool) error {
	if !def.GuardsParent() {
		return nil
	}
	links, err := l.Host.Interfaces()
	for _, i := range links {
		if needed[i.Index] {
			continue
		}
		held, herr := l.Guards.ParentGuarded(i.Index)
		if held {
			herr = l.Guards.UnguardParent(i.Index)
		}
		err = errors.Join(err, herr)
	}
	return err
}

// releaseTrunks removes the program of a parent's trunk, if no other network is on the trunk and it
// has no endpoints. If the parent is missing, its trunk is unknown, and the programs of all trunks
// without a network are removed.
func (l *Admin) releaseTrunks(p link.Parent, missing bool, n *siblings) (err error) {
	trunks := []int{p.TrunkIndex}
	if missing {
		if trunks, err = l.Datapath.Trunks(); err != nil {
			return err
		}
	}
	for _, trunk := range trunks {
		if !l.anyOnTrunk(trunk, n) {
			err = errors.Join(err, l.Datapath.Release(trunk))
		}
	}
	return err
}

// anyOnTrunk reports whether any network is on the trunk with an ifindex.
func (l *Admin) anyOnTrunk(trunk int, n *siblings) bool {
	for _, o := range n.byName {
		if q, err := l.Parent(o); err == nil && q.TrunkIndex == trunk {
			return true
		}
	}
	return false
}

// Restored is the result of Restore for one network.
type Restored struct {
	Network string
	Parent  string
	Made    bool   // the parent was missing, and was created
	Blind   string // why the trunk is not watched; "" if it is
	Err     error  // why the network cannot be used; Blind is not set then
}

// watchedTrunks has the trunks that a command has already loaded the program of, and the reason why
// a trunk cannot be watched.
type watchedTrunks map[trunkKey]string

// trunkKey is a trunk's ifindex and a driver: the frames of an ipvlan cannot be watched on any
// trunk.
type trunkKey struct {
	index  int
	driver string
}

// watch is [attach.Local.WatchNetwork], but runs only once for each trunk and driver.
func (w watchedTrunks) watch(l *Admin, def *network.Definition, p link.Parent) (blind string) {
	key := trunkKey{p.TrunkIndex, def.Driver}
	if _, done := w[key]; !done {
		w[key] = l.WatchNetwork(def, p)
	}
	return w[key]
}

// Restore creates the managed parents and the host's own links, which are missing after a boot, and
// loads the trunk programs. It restores addresses, routes and settings of the host's own links that other
// programs have changed.
// It never creates a parent of the administrator's. An error of one network is in its own result. err
// is about invalid definitions, or the records.
func (l *Admin) Restore(ctx context.Context) (all []Restored, err error) {
	unlock, err := l.lockDefinitions(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	defs, broken := network.LoadAll(l.Networks)
	watched := watchedTrunks{}
	for _, def := range defs {
		r := Restored{Network: def.Name, Parent: def.Parent}
		var p link.Parent
		if p, r.Made, r.Err = l.EnsureParent(ctx, def); r.Err == nil {
			r.Err = l.RestoreHostAccess(ctx, def, p, recs)
			r.Blind = watched.watch(l, def, p)
		}
		all = append(all, r)
	}
	return all, errors.Join(broken...)
}
