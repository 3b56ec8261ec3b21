package main

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// listener counts the announcements of two addresses that come to a station.
type listener struct {
	ip4, ip6    netip.Addr
	mu          sync.Mutex
	garps, nads int
}

func listen(tb testing.TB, n *testenv.Namespace, ip4, ip6 string) *listener {
	tb.Helper()
	var conn *packet.Conn
	must(tb, n.Do(func() error {
		i, err := net.InterfaceByName(testenv.NIC)
		if err == nil {
			conn, err = packet.Listen(i, packet.Raw, unix.ETH_P_ALL, nil)
		}
		return err
	}))
	l := &listener{ip4: netip.MustParseAddr(ip4), ip6: netip.MustParseAddr(ip6)}
	var done sync.WaitGroup
	done.Go(func() { l.read(conn) })
	tb.Cleanup(func() {
		conn.Close()
		done.Wait()
	})
	return l
}

func (l *listener) read(conn *packet.Conn) {
	b := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		l.mu.Lock()
		if p, err := arp.Parse(b[:n]); err == nil && p.SenderIP == l.ip4 && p.TargetIP == l.ip4 {
			l.garps++
		}
		if m, err := ndp.Parse(b[:n]); err == nil && m.Advert && !m.Solicited && m.Target == l.ip6 {
			l.nads++
		}
		l.mu.Unlock()
	}
}

func (l *listener) count() (garps, nads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.garps, l.nads
}
