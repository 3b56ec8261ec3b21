package attach

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/ipam"
)

// ownerOf returns the owner of an attachment's leases.
func ownerOf(a hook.Attachment) ipam.Owner {
	return ipam.Owner{Attachment: a.ID.String(), Network: a.Network, Interface: a.Interface}
}

// leaseName returns the name of the attachment's leases.
func (t *attempt) leaseName() string {
	by := t.caller
	if by == nil && t.rec.Owner != 0 { // it is made again, for no caller
		by = &hook.Caller{UID: t.rec.Owner}
	}
	return leaseName(t.container(), t.r.Pod, by)
}

// ownName returns a name of the interface that no other one on the network has at the same time.
func (t *attempt) ownName() string { return t.leaseName() + "\x00" + t.rec.Interface }

// secretName returns the name that the secret of the interface's addresses is derived from: its own name, by
// which a container finds its addresses again. The names of a rebuilt record are lost, but its MAC is not.
func (t *attempt) secretName() string {
	if len(t.rec.Containers) == 0 {
		return t.rec.MAC.String()
	}
	return t.ownName()
}

// leaseName returns the name by which a container finds its address again after a restart: the
// engine's name of the container, or its id, which some engines keep. In a pod it is the pod's name,
// because any of its containers may start first. A caller without privilege chooses its names
// freely, so its uid is a part of them.
func leaseName(c hook.Container, p hook.Pod, by *hook.Caller) string {
	name := cmp.Or(c.Name, c.ID)
	if p.Name != "" {
		name = p.Namespace + "/" + p.Name
	}
	if by == nil {
		return name
	}
	return fmt.Sprintf("uid %d: %s", by.UID, name)
}

// joinPrefixes returns the prefixes, separated by ", ".
func joinPrefixes(ps []netip.Prefix) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.String()
	}
	return strings.Join(s, ", ")
}
