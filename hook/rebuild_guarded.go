package hook

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// guardedSurvivors gives a record for each guarded interface on one of our
// networks that the namespace has. Its owner can make links of any MAC and put any
// address on them: what counts is what the datapath watches for this very namespace.
func (l *Local) guardedRecordsIn(n *link.Netns, id Netns, standing func() []networkParent, watched []verify.Endpoint) (found []Attachment, err error) {
	mine := slices.DeleteFunc(slices.Clone(watched), func(e verify.Endpoint) bool { return e.Netns != id.Cookie })
	if id.Cookie == 0 || l.Guards == nil || len(mine) == 0 {
		return nil, nil // below Linux 5.14 nothing says which namespace is meant
	}
	ends, err := n.Veths()
	if err != nil {
		return nil, err
	}
	for _, i := range ends {
		for _, e := range mine {
			if e.MAC != verify.MACOf(i.MAC) {
				continue
			}
			owners, err := n.Owners()
			if err != nil || len(owners) < 2 {
				return found, err
			}
			for _, s := range standing() {
				if !s.carries(e) {
					continue
				}
				a := baseRecord(i, id, s)
				a.ID, a.MAC, a.Endpoint, a.Owner = e.Attachment, e.MAC, e, owners[len(owners)-2]
				a.Guard = &verify.Guard{Attachment: e.Attachment, MAC: e.MAC}
				a.Verdict.Text = "found again by its guard: the database was lost"
				if a.setAddrs(s.def, leasedAddrs(e)); len(a.Addrs) > 0 {
					a.Defaults = defaultsVia(lazyDefaults(n)(), i.Index)
					found = append(found, a)
				}
			}
		}
	}
	return found, nil
}

// leased are an endpoint's addresses, as if the interface showed them.
func leasedAddrs(e verify.Endpoint) (addrs []link.Addr) {
	for _, a := range e.Addrs {
		addrs = append(addrs, link.Addr{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return addrs
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
