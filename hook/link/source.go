package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tables of source routing are numbered from here by the interface's index.
// Distributions name none above 255, and the kernel takes 32 bits.
const firstSourceTable = 0x6c790000

// sourceRulePriority is where our rules stand: before that of the main table
// (32766), after those that others may have put in front.
const sourceRulePriority = 30000

// RouteBySource has whatever is sent from the addresses go by the routes, which
// are in a table of the interface's own. The table goes with the interface; the
// rules that lead to it stay until RouteNoMore, or with the namespace.
func (n *Netns) RouteBySource(index int, addrs []netip.Prefix, routes []Route) error {
	table := firstSourceTable + index
	for _, r := range routes {
		if err := n.addRoute(r, table); err != nil {
			return err
		}
	}
	for _, p := range addrs {
		err := n.handle.RuleAdd(sourceRule(index, p.Addr()))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add rule for what is sent from %s: %w", p.Addr(), explainErrno(err))
		}
	}
	return nil
}

// RouteNoMore takes the rules away that RouteBySource made; absent ones are no
// error.
func (n *Netns) RouteNoMore(index int, addrs []netip.Prefix) error {
	var errs []error
	for _, p := range addrs {
		err := n.handle.RuleDel(sourceRule(index, p.Addr()))
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("delete rule for what is sent from %s: %w", p.Addr(), explainErrno(err)))
		}
	}
	return errors.Join(errs...)
}

func sourceRule(index int, from netip.Addr) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Family = sourceRulePriority, firstSourceTable+index, unix.AF_INET
	if from.Is6() {
		r.Family = unix.AF_INET6
	}
	r.Src = ipNet(netip.PrefixFrom(from, from.BitLen()))
	return r
}
