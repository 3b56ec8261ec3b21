package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// firstSourceTable plus the ifindex is the number of an interface's table for source routing.
// Distributions name no tables above 255, and the kernel allows 32 bits.
const firstSourceTable = 0x6c790000

// sourceRulePriority is the priority of our rules: before the rule of the main table
// (32766), and after rules that other programs put first.
const sourceRulePriority = 30000

// RouteBySource makes packets from the addresses use the routes, which it adds to a table
// for the interface with that ifindex. The kernel deletes the table's routes with the
// interface. The rules stay until DeleteSourceRules or until the namespace ends.
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
			return fmt.Errorf("add rule for source address %s: %w", p.Addr(), explainErrno(err))
		}
	}
	return nil
}

// DeleteSourceRules deletes the rules that RouteBySource added for an ifindex. It ignores missing ones.
func (n *Netns) DeleteSourceRules(index int, addrs []netip.Prefix) error {
	var errs []error
	for _, p := range addrs {
		err := n.handle.RuleDel(sourceRule(index, p.Addr()))
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("delete rule for source address %s: %w", p.Addr(), explainErrno(err)))
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
