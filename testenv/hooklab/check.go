package hooklab

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// HostRoutes lists the host's routes by a link, without those that the kernel
// made.
func (w *Lab) HostRoutes(link string) (to []string) {
	w.TB.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := w.Host.Exec("ip", family, "route", "show", "dev", link)
		must(w.TB, err)
		for line := range strings.Lines(out) {
			if !strings.Contains(line, "proto kernel") {
				to = append(to, strings.Fields(line)[0])
			}
		}
	}
	return to
}

// WantHostRoutes checks the host's routes by a link.
func (w *Lab) WantHostRoutes(link string, want ...string) {
	w.TB.Helper()
	if to := w.HostRoutes(link); !slices.Equal(to, want) {
		w.TB.Errorf("the host's routes by %s are %q, want %q", link, to, want)
	}
}

// WantNoUnleased checks that the parents have no unleased MACs.
func (w *Lab) WantNoUnleased() {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		found, _ := l.Audit(ctx)
		for _, a := range found {
			if len(a.Unleased)+len(a.Dropped) > 0 || a.Err != nil {
				w.TB.Errorf("unleased MACs on %s: %v, dropped %v, %v", a.Parent, a.Unleased, a.Dropped, a.Err)
			}
		}
		return nil
	}))
}

// Addresses returns the addresses of an attachment, without prefix lengths.
func Addresses(a hook.Attachment) (list []string) {
	for _, p := range a.Addrs {
		list = append(list, p.Addr().String())
	}
	return list
}

// AddrsIn lists a container's addresses on the LAN, link-local ones left out.
func AddrsIn(tb testing.TB, c *testenv.Container) (addrs []string) {
	tb.Helper()
	out, err := c.Exec("ip", "-o", "addr", "show", "scope", "global")
	must(tb, err)
	for line := range strings.Lines(out) {
		addrs = append(addrs, strings.Fields(line)[3])
	}
	slices.Sort(addrs)
	return addrs
}

// RoutesIn lists a container's routes by family, as ip-route(8) prints them.
func RoutesIn(tb testing.TB, c *testenv.Container, family string, table ...string) []string {
	tb.Helper()
	out, err := c.Exec("ip", append([]string{family, "route", "show"}, table...)...)
	must(tb, err)
	var routes []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "fe80::") && !strings.HasPrefix(line, "multicast") {
			routes = append(routes, strings.TrimSpace(line))
		}
	}
	return routes
}

// IP runs ip(8) in a namespace, with the arguments in one line.
func IP(tb testing.TB, n *testenv.Namespace, line string) {
	tb.Helper()
	_, err := n.Exec("ip", strings.Fields(line)...)
	must(tb, err)
}
