package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestAnnounceMoved checks that the announcements after a move reach the switch: it has the MACs of
// the containers, also of a guarded one, on another port. TestBondMoves has the event.
func TestAnnounceMoved(t *testing.T) {
	b, gw := lanBrokered(t, nil)
	root, user := testenv.NewContainer(t), testenv.NewRootless(t, alice)
	b.MustAttach("c1", root, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	b.mustAttachBy(alice, "c2", user.Pid, "network=web", "ip=192.168.50.10", "ip6=fd50::10")
	addrs := []string{"192.168.50.9", "fd50::9", "192.168.50.10", "fd50::10"}
	for _, a := range addrs { // now the gateway has neighbour entries, and does not ask again
		hooklab.Pings(t, gw.Namespace, a)
	}
	recs := map[string]hook.Attachment{} // by address
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		all, err := l.Attachments(ctx)
		for _, a := range all {
			for _, addr := range hooklab.Addresses(a) {
				recs[addr] = a
			}
		}
		return err
	}))
	elsewhere := func(mac ether.MAC) {
		_, err := b.Switch.Exec("bridge", "fdb", "replace", mac.String(), "dev", gw.Port, "master", "dynamic")
		must(t, err)
	}
	for _, a := range addrs {
		// A container that sends, as it does for IPv6 after its start, is found again.
		testenv.Eventually(t, a+" to be silent", func() error {
			elsewhere(recs[a].MAC)
			if _, err := gw.Exec("ping", "-n", "-c1", "-W1", a); err == nil {
				return errors.New("it is reached")
			}
			return nil
		})
	}
	trunk := recs[addrs[0]].Endpoint.Trunk
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		if n, err := l.AnnounceMoved(ctx, map[int]bool{trunk + 1000: true}); n != 0 || err != nil {
			return fmt.Errorf("on another trunk: %d announced, %w", n, err)
		}
		n, err := l.AnnounceMoved(ctx, map[int]bool{trunk: true})
		if n != 2 && err == nil {
			err = fmt.Errorf("%d announced", n)
		}
		return err
	}))
	for _, a := range addrs {
		hooklab.Pings(t, gw.Namespace, a)
	}
}
