package admin

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// LinkChanged is the kind of an event for what another program has done to a link that Lanyard created: an
// added address, or a deleted link or route of the host.
const LinkChanged verify.Kind = "link-changed"

// createdLink is a link of the host that Lanyard created: a parent, or the host's own link on a
// network.
type createdLink struct {
	index int // ifindex
	name  string
	own   bool // the host's own link
	up    bool // administratively; known of the host's own links only
}

// LinkChanges returns an event for each address that another program has put on a link of the host
// that Lanyard created: network managers do so with a rule that matches every link. A link-local
// address shows that IPv6 was turned on. It also returns an event for each network that has lost the
// host's own link on it, or routes to its containers. The time of the events is now.
func (l *Admin) LinkChanges(ctx context.Context) (list []TrunkEvent, err error) {
	links, err := l.createdLinks()
	if err != nil {
		return nil, err
	}
	list, err = l.addedAddrs(links)
	if err != nil {
		return nil, err
	}
	lost, err := l.lostHostAccess(ctx, links)
	return append(list, lost...), err
}

// addedAddrs returns an event for each address that another program has put on one of the links.
func (l *Admin) addedAddrs(links []createdLink) (list []TrunkEvent, err error) {
	if len(links) == 0 {
		return nil, nil
	}
	addrs, err := l.Host.HostAddrs()
	if err != nil {
		return nil, err
	}
	var defs []*network.Definition // read only if needed, because there may be thousands
	now := time.Now()
	for _, a := range addrs {
		i := slices.IndexFunc(links, func(c createdLink) bool { return c.index == a.Index })
		if i < 0 {
			continue
		}
		if defs == nil {
			defs, _ = network.LoadAll(l.Networks) // other commands report invalid files
		}
		c, name := links[i], ""
		if def := c.network(defs); def != nil {
			name = def.Name
			if c.own && isHosts(def, a.Addr) {
				continue
			}
		}
		list = append(list, changeOf(c.name, name, a.Addr, now, changedText(c.name, a.Addr)))
	}
	return list, nil
}

// changeOf returns an event for a link and its network; addr is the added address, or the
// destination of the route; zero for none.
func changeOf(name, network string, addr netip.Addr, at time.Time, text string) TrunkEvent {
	return TrunkEvent{
		Event: verify.Event{Kind: LinkChanged, Frames: 1, Addr: addr, Link: name},
		At:    at, Since: at, Trunk: name, Network: network, Text: text,
	}
}

// changedText says that another program has put an address on a link, and what to do.
func changedText(name string, addr netip.Addr) string {
	const ignore = `let the network manager ignore the link ("lanyard doctor" names it)`
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		return fmt.Sprintf("another program has turned on IPv6 on %q, which Lanyard created: %s, and run "+
			"\"sysctl -w net/ipv6/conf/%s/disable_ipv6=1\"", name, ignore, name)
	}
	return fmt.Sprintf("%q, which Lanyard created, has address %s from another program: %s, and delete the address",
		name, addr, ignore)
}

// network returns the first network that the link was created for, or nil.
func (c createdLink) network(defs []*network.Definition) *network.Definition {
	i := slices.IndexFunc(defs, func(d *network.Definition) bool {
		return c.own && d.HostLink() == c.name || !c.own && d.Parent == c.name
	})
	if i < 0 {
		return nil
	}
	return defs[i]
}

// isHosts reports whether the host's own link on a network has the address from Lanyard, or from the
// kernel.
func isHosts(def *network.Definition, addr netip.Addr) bool {
	if !addr.IsLinkLocalUnicast() {
		return slices.Contains(def.HostAddresses, addr)
	}
	return slices.ContainsFunc(def.Subnets, func(s network.Subnet) bool { return s.Subnet.Addr().Is6() })
}

// createdLinks returns the links of the host that Lanyard created.
func (l *Admin) createdLinks() (links []createdLink, err error) {
	parents, err := l.Host.Created()
	if err != nil {
		return nil, err
	}
	for _, p := range parents {
		links = append(links, createdLink{index: p.Index, name: p.Name})
	}
	all, err := l.Host.Interfaces()
	for _, i := range all {
		if network.IsHostLink(i.Name) {
			links = append(links, createdLink{i.Index, i.Name, true, i.Flags&net.FlagUp != 0})
		}
	}
	return links, err
}
