package hook

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// guardedSurvivors gives a record for each guarded interface on the network that
// the namespace has. Its owner can make links of any MAC and put any address on
// them: what counts is what the datapath watches for this very namespace.
func (l *Local) guardedSurvivors(n *link.Netns, id Netns, def *network.Definition, parent link.Parent, watched []verify.Endpoint) (found []Attachment, err error) {
	if id.Cookie == 0 || l.Guards == nil {
		return nil, nil // below Linux 5.14 nothing says which namespace is meant
	}
	ends, err := n.Veths()
	if err != nil {
		return nil, err
	}
	for _, i := range ends {
		at := slices.IndexFunc(watched, func(e verify.Endpoint) bool {
			return e.Netns == id.Cookie && e.MAC == verify.MACOf(i.MAC) && e.Trunk == parent.TrunkIndex && e.Tags.Equal(tagsOf(parent))
		})
		if at < 0 {
			continue
		}
		owners, err := n.Owners()
		if err != nil || len(owners) < 2 {
			return found, err
		}
		e := watched[at]
		a := Attachment{
			ID: e.Attachment, Endpoint: e, Guard: &verify.Guard{Attachment: e.Attachment, MAC: e.MAC},
			Owner: owners[len(owners)-2], AtParent: def.GuardsParent(), HostLink: hostLinkOf(def),
			State: Attached, Network: def.Name, Generation: def.ID, Driver: def.Driver,
			Interface: i.Name, Index: i.Index, MAC: e.MAC, MTU: i.MTU,
			Parent: parent.Name, ParentIdx: parent.Index, Trunk: parent.Trunk, Netns: id,
			Quarantine: time.Duration(def.Quarantine), Mode: verify.Mode(def.VerifyMode()), Created: time.Now().UTC(),
			Verdict: verify.Verdict{Code: verify.Unverified, Text: "found again by its guard: the database was lost"},
		}
		var leased []link.Addr
		for _, addr := range e.Addrs {
			leased = append(leased, link.Addr{Prefix: netip.PrefixFrom(addr, addr.BitLen())})
		}
		if a.recall(def, leased); len(a.Addrs) > 0 {
			found = append(found, a)
		}
	}
	return found, nil
}

// dropOrphans deletes the links of guarded attachments that nobody has the other
// end of: their MACs would be taken for ever.
func (l *Local) dropOrphans(living []Attachment) error {
	guards, err := l.openGuards()
	if err != nil {
		return nil // nobody has made any
	}
	defer guards.Close()
	tags, err := guards.GuardedTags()
	for _, tag := range tags {
		if !slices.ContainsFunc(living, func(a Attachment) bool { return a.Guard != nil && guardTag(a.ID) == tag }) {
			err = errors.Join(err, guards.DeleteGuarded(tag))
		}
	}
	return err
}
