package hook

import (
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// neighbours are the networks that there are, found by their parents: a trunk has
// thousands of VLANs, and whoever makes or removes them all must not compare each
// with each.
type siblings struct {
	byName   map[string]*network.Definition   // by name
	byParent map[string][]*network.Definition // by their parent's name
	vlansOn  map[string]int                   // how many stand on a VLAN of that link
	// others are those whose parent's name is that of no VLAN: what stands behind
	// it has to be asked for.
	notVLAN map[string]*network.Definition
}

func siblingsOf(defs []*network.Definition) *siblings {
	n := &siblings{
		byName: map[string]*network.Definition{}, byParent: map[string][]*network.Definition{}, vlansOn: map[string]int{},
		notVLAN: map[string]*network.Definition{},
	}
	for _, d := range defs {
		n.add(d)
	}
	return n
}

func (n *siblings) add(d *network.Definition) {
	n.byName[d.Name], n.byParent[d.Parent] = d, append(n.byParent[d.Parent], d)
	if base := baseOf(d.Parent); base == "" {
		n.notVLAN[d.Name] = d
	} else {
		n.vlansOn[base]++
	}
}

func (n *siblings) remove(d *network.Definition) {
	delete(n.byName, d.Name)
	delete(n.notVLAN, d.Name)
	n.byParent[d.Parent] = slices.DeleteFunc(n.byParent[d.Parent], func(o *network.Definition) bool { return o.Name == d.Name })
	if base := baseOf(d.Parent); base != "" {
		n.vlansOn[base]--
	}
}

// needs says whether a network stands on the link of that name.
func (n *siblings) hasParent(parent string) bool { return len(n.byParent[parent]) > 0 }

// above says whether a network stands on a VLAN of the link of that name.
func (n *siblings) hasVLANOn(parent string) bool { return n.vlansOn[parent] > 0 }

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
func (l *Local) withSameTags(def *network.Definition, p link.Parent, n *siblings) []*network.Definition {
	found := slices.Clone(n.byParent[def.Parent])
	if p.Index == 0 {
		return found
	}
	// Two links of VLANs' names are two VLANs: the kernel has each VLAN of a link
	// once. Thousands of them need not be asked for.
	maybe := n.notVLAN
	if baseOf(def.Parent) == "" {
		maybe = n.byName
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
