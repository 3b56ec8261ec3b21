package hook

import (
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// neighbours are the networks that there are, found by their parents: a trunk has
// thousands of VLANs, and whoever makes or removes them all must not compare each
// with each.
type neighbours struct {
	all     []*network.Definition
	parents map[string][]*network.Definition // by name
	// others are those whose parent's name is that of no VLAN: what stands behind
	// it has to be asked for.
	others []*network.Definition
}

func neighboursOf(defs []*network.Definition) *neighbours {
	n := &neighbours{parents: map[string][]*network.Definition{}}
	for _, d := range defs {
		n.add(d)
	}
	return n
}

func (n *neighbours) add(d *network.Definition) {
	n.all, n.parents[d.Parent] = append(n.all, d), append(n.parents[d.Parent], d)
	if !isVLANName(d.Parent) {
		n.others = append(n.others, d)
	}
}

func (n *neighbours) remove(d *network.Definition) {
	is := func(o *network.Definition) bool { return o.Name == d.Name }
	n.all, n.others = slices.DeleteFunc(n.all, is), slices.DeleteFunc(n.others, is)
	if left := slices.DeleteFunc(n.parents[d.Parent], is); len(left) > 0 {
		n.parents[d.Parent] = left
		return
	}
	delete(n.parents, d.Parent)
}

// needs says whether a network stands on the link of that name.
func (n *neighbours) needs(parent string) bool { return len(n.parents[parent]) > 0 }

// above says whether a network stands on a VLAN of the link of that name.
func (n *neighbours) above(parent string) bool {
	for p := range n.parents {
		if strings.HasPrefix(p, parent+".") {
			return true
		}
	}
	return false
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
	if !isVLANName(def.Parent) {
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

func isVLANName(name string) bool {
	_, vid, err := link.ParseParent(name)
	return err == nil && vid != 0
}
