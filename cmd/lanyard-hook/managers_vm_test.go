//go:build vm

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestNetworkdSubInterface checks what systemd-networkd does to a sub-interface that Lanyard created:
// a file that matches it takes it over, which is reported, and one that names it keeps it as it is.
// The containers on it work in both cases.
func TestNetworkdSubInterface(t *testing.T) {
	const unmanaged = "[Match]\nName=eth9.50\n[Link]\nUnmanaged=yes\n"
	for what, files := range map[string]map[string]string{
		"unmanaged": {"50-all.network": greedy, "05-eth9.50.network": unmanaged},
		"without":   {"50-all.network": greedy},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, testenv.Config{VLANs: []uint16{50}})
			w.AddGateway(50, "192.168.50.1/24")
			w.Define("web", "eth9.50", nil, "192.168.50.0/24")
			c := testenv.NewContainer(t)
			w.MustAttach("c1", c, "network=web")
			configured := []string{"eth9"}
			if what == "without" {
				configured = append(configured, "eth9.50")
			}
			w.networkd(t, files, configured...)
			if what == "without" {
				testenv.Eventually(t, "the report of its address", func() error {
					if told := w.linkChanges(t); !strings.Contains(told, `"eth9.50", which Lanyard created, has address 10.77.0.9`) {
						return fmt.Errorf("reported: %q", told)
					}
					return nil
				})
			} else if addrs, told := w.addrsOn(t, "eth9.50"), w.linkChanges(t); addrs != "" || told != "" {
				t.Errorf("eth9.50 has %q, reported: %q", addrs, told)
			}
			hooklab.Pings(t, c.Namespace, "192.168.50.1")
		})
	}
}

// linkChanges returns what "ps" says of the host's links that Lanyard created.
func (w *world) linkChanges(t *testing.T) (told string) {
	t.Helper()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		changes, err := l.LinkChanges(ctx)
		for _, h := range changes {
			told += h.String() + "\n"
		}
		return err
	}))
	return told
}
