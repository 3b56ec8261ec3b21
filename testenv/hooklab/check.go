package hooklab

import (
	"context"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/internal/wiring"
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
