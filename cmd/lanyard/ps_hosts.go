package main

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
)

// otherHosts returns a row for each container of another host on those networks of defs that keep
// their leases in etcd. recs are the attachments of this host.
func otherHosts(
	ctx context.Context, l *wiring.Lanyard, defs []*network.Definition, recs []hook.Attachment,
) (rows []overview.Row, err error) {
	own := map[string]bool{}
	for _, a := range recs {
		own[a.ID.String()] = true
	}
	for _, def := range defs {
		if def.Leases == "" {
			continue
		}
		usage, err := l.Usage(ctx, def)
		if err != nil {
			return rows, err
		}
		at := map[ipam.Owner]int{} // the row of an owner: it has an address of each family
		for _, u := range usage {
			for _, lease := range u.Leases {
				if lease.State != ipam.Held || own[lease.Owner.Attachment] {
					continue
				}
				i, ok := at[lease.Owner]
				if !ok {
					i, rows = len(rows), append(rows, overview.Row{
						Name: lease.Name, Attachment: lease.Owner.Attachment, Network: def.Name, Interface: lease.Owner.Interface,
						Host: cmp.Or(lease.Host, "?"),
					})
					at[lease.Owner] = i
				}
				rows[i].Addresses = append(rows[i].Addresses, netip.PrefixFrom(lease.Addr, u.Subnet.Bits()))
			}
		}
	}
	return rows, nil
}

// withHosts adds the column HOST to a table of rows; of this host's own containers it is empty.
func withHosts(table [][]string, rows []overview.Row) [][]string {
	if !slices.ContainsFunc(rows, func(r overview.Row) bool { return r.Host != "" }) {
		return table
	}
	table[0] = append(table[0], "HOST")
	for i, r := range rows {
		table[i+1] = append(table[i+1], r.Host)
	}
	return table
}
