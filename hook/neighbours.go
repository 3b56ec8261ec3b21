package hook

import (
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// neighbours are the networks that there are, found by their parents: a trunk has
// thousands of VLANs, and whoever makes or removes them all must not compare each
// with each.
type neighbours struct {
	all     map[string]*network.Definition   // by name
	parents map[string][]*network.Definition // by their parent's name
	bases   map[string]int                   // how many stand on a VLAN of that link
	// others are those whose parent's name is that of no VLAN: what stands behind
	// it has to be asked for.
	others map[string]*network.Definition
}

func neighboursOf(defs []*network.Definition) *neighbours {
	n := &neighbours{
		all: map[string]*network.Definition{}, parents: map[string][]*network.Definition{}, bases: map[string]int{},
		others: map[string]*network.Definition{},
	}
	for _, d := range defs {
		n.add(d)
	}
	return n
}

func (n *neighbours) add(d *network.Definition) {
	n.all[d.Name], n.parents[d.Parent] = d, append(n.parents[d.Parent], d)
	if base := baseOf(d.Parent); base == "" {
		n.others[d.Name] = d
	} else {
		n.bases[base]++
	}
}

func (n *neighbours) remove(d *network.Definition) {
	delete(n.all, d.Name)
	delete(n.others, d.Name)
	n.parents[d.Parent] = slices.DeleteFunc(n.parents[d.Parent], func(o *network.Definition) bool { return o.Name == d.Name })
	if base := baseOf(d.Parent); base != "" {
		n.bases[base]--
	}
}

// needs says whether a network stands on the link of that name.
func (n *neighbours) needs(parent string) bool { return len(n.parents[parent]) > 0 }

// above says whether a network stands on a VLAN of the link of that name.
func (n *neighbours) above(parent string) bool { return n.bases[parent] > 0 }

// baseOf is the link that a VLAN of that name is on, "" where the name is that of no
// VLAN.
func baseOf(parent string) string {
	base, vid, err := link.ParseParent(parent)
	if err != nil || vid == 0 {
		return ""
	}
	return base
}

// beside gives the networks whose frames are on p's trunk with the same tags:
// those that name the same parent, and those whose parent is another name of
// the same link. p is zero where the parent is not made yet.
func (l *Local) beside(def *network.Definition, p link.Parent, n *neighbours) []*network.Definition {
	found := slices.Clone(n.parents[def.Parent])
	if p.Index == 0 {
		return found
	}
	// Two links of VLANs' names are two VLANs: the kernel has each VLAN of a link
	// once. Thousands of them need not be asked for.
	maybe := n.others
	if baseOf(def.Parent) == "" {
		maybe = n.all
	}
	for _, o := range maybe {
		if o.Parent == def.Parent {
			continue
		}
		if q, err := l.Parent(o); err == nil && q.TrunkIndex == p.TrunkIndex && slices.Equal(q.Tags, p.Tags) {
			found = append(found, o)
		}
	}
	return found
}
