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
			addrs, err := n.Addrs(i.Index)
			if err != nil {
				return nil, err
			}
			for _, a := range guardedRecords(i, id, e, parents(), leasedAddrs(e, addrs)) {
				a.Owner = owner
				setRouters(n, &a)
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
	i link.Interface, id hook.Netns, e verify.Endpoint, parents []networkParent, addrs []link.Addr,
) (found []hook.Attachment) {
	for _, s := range parents {
		if !s.carries(e) {
			continue
		}
		a := baseRecord(i, id, s)
		a.ID, a.MAC, a.Endpoint = e.Attachment, e.MAC, e
		a.Guard = &verify.Guard{Attachment: e.Attachment, MAC: e.MAC}
		a.Verdict.Text = "restored from its guard: the database was lost"
		setAddrs(&a, s.def, s.possible(addrs, e.MAC, parents))
		if len(a.Addrs) > 0 {
			a.Guard.MTU, a.Guard.Addrs, a.Guard.Gateways = i.MTU, e.Addrs, a.Gateways
			a.Guard.Autoconf = a.IsAutoconf()
			found = append(found, a)
		}
	}
	return found
}

// leasedAddrs returns an endpoint's addresses in the form of an interface's. Prefix length and lifetime
// are those of the same address in has, if it is there.
func leasedAddrs(e verify.Endpoint, has []link.Addr) (addrs []link.Addr) {
	for _, a := range e.Addrs {
		one := link.Addr{Prefix: netip.PrefixFrom(a, a.BitLen())}
		if i := slices.IndexFunc(has, func(h link.Addr) bool { return h.Prefix.Addr() == a }); i >= 0 {
			one = has[i]
		}
		addrs = append(addrs, one)
	}
	return addrs
}
