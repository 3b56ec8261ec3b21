package rebuild

import (
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// guardedRecordsIn returns a record for each guarded interface of the namespace that is on a
// network. The namespace's owner can create links with any MAC and address, so the addresses are
// those of the endpoint that the datapath has for this namespace's cookie.
func (r *Rebuilder) guardedRecordsIn(
	n *link.Netns, id hook.Netns, owner uint32, parents func() []networkParent, watched []verify.Endpoint,
) (found []hook.Attachment, err error) {
	endpoints := slices.DeleteFunc(slices.Clone(watched), func(e verify.Endpoint) bool { return e.Netns != id.Cookie })
	if id.Cookie == 0 || owner == 0 || len(endpoints) == 0 {
		return nil, nil // before Linux 5.14 there are no cookies, and endpoints do not name a namespace
	}
	ends, err := n.Veths()
	if err != nil {
		return nil, err
	}
	for _, i := range ends {
		for _, e := range endpoints {
			if e.MAC != i.MAC {
				continue
			}
			for _, a := range guardedRecords(i, id, e, parents()) {
				a.Owner = owner
				a.Defaults = defaultsVia(lazyDefaults(n)(), i.Index)
				found = append(found, a)
			}
		}
	}
	return found, nil
}

// guardedRecords returns a record of a guarded interface for each network that carries its endpoint
// and has one of its addresses.
func guardedRecords(
	i link.Interface, id hook.Netns, e verify.Endpoint, parents []networkParent,
) (found []hook.Attachment) {
	for _, s := range parents {
		if !s.carries(e) {
			continue
		}
		a := baseRecord(i, id, s)
		a.ID, a.MAC, a.Endpoint = e.Attachment, e.MAC, e
		a.Guard = &verify.Guard{Attachment: e.Attachment, MAC: e.MAC}
		a.Verdict.Text = "restored from its guard: the database was lost"
		setAddrs(&a, s.def, leasedAddrs(e))
		if len(a.Addrs) > 0 {
			found = append(found, a)
		}
	}
	return found
}

// leasedAddrs returns an endpoint's addresses in the form of an interface's.
func leasedAddrs(e verify.Endpoint) (addrs []link.Addr) {
	for _, a := range e.Addrs {
		addrs = append(addrs, link.Addr{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return addrs
}
