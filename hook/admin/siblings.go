package admin

import (
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// siblings is an index of all networks by their parents. A trunk can have thousands of VLANs, and a
// command that creates or removes them all must not compare each with each.
type siblings struct {
	byName   map[string]*network.Definition
	byParent map[string][]*network.Definition // by the parent's name
	vlansOn  map[string]int                   // number of networks on a VLAN of the link
	// notVLAN are the networks with a parent's name that is not LINK.VID: only the kernel
	// knows which link it is.
	notVLAN map[string]*network.Definition
	// inUse are the ifindexes of the parents of all containers, and of the links below them. guarded are
	// the parents of containers whose network guards them. They are empty if no link is to be removed.
	inUse, guarded map[int]bool
}

// siblingsOf returns the index of the definitions.
func siblingsOf(defs []*network.Definition) *siblings {
	n := &siblings{
		byName: map[string]*network.Definition{}, byParent: map[string][]*network.Definition{}, vlansOn: map[string]int{},
		notVLAN: map[string]*network.Definition{}, inUse: map[int]bool{}, guarded: map[int]bool{},
	}
	for _, d := range defs {
		n.add(d)
	}
	return n
}

// add adds a network to the index.
func (n *siblings) add(d *network.Definition) {
	n.byName[d.Name], n.byParent[d.Parent] = d, append(n.byParent[d.Parent], d)
	if base := baseOf(d.Parent); base == "" {
		n.notVLAN[d.Name] = d
	} else {
		n.vlansOn[base]++
	}
}

// remove removes a network from the index.
func (n *siblings) remove(d *network.Definition) {
	delete(n.byName, d.Name)
	delete(n.notVLAN, d.Name)
	same := func(o *network.Definition) bool { return o.Name == d.Name }
	n.byParent[d.Parent] = slices.DeleteFunc(n.byParent[d.Parent], same)
	if base := baseOf(d.Parent); base != "" {
		n.vlansOn[base]--
	}
}

// hasParent reports whether a network has the link with that name as its parent.
func (n *siblings) hasParent(parent string) bool { return len(n.byParent[parent]) > 0 }

// hasVLANOn reports whether a network is on a VLAN of the link with that name.
func (n *siblings) hasVLANOn(parent string) bool { return n.vlansOn[parent] > 0 }

// baseOf returns the name of the link below a VLAN's link: "eth0" for "eth0.50". It returns "" for
// a name of another form.
func baseOf(parent string) string {
	base, vid, err := link.ParseParent(parent)
	if err != nil || vid == 0 {
		return ""
	}
	return base
}

// withSameTags returns the networks with frames of the same tags on p's trunk: those with
// the same parent's name, and those with the same link as parent, by another name. p is zero if the
// parent does not exist yet.
func (l *Admin) withSameTags(def *network.Definition, p link.Parent, n *siblings) []*network.Definition {
	found := slices.Clone(n.byParent[def.Parent])
	if p.Index == 0 {
		return found
	}
	// Two parents with names of the form LINK.VID are different VLANs, because the kernel has each
	// VLAN of a link once. So thousands of them need not be looked up.
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
