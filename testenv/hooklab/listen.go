package hooklab

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// Listener counts the announcements of an IPv4 and an IPv6 address that come to a card.
type Listener struct {
	ip4, ip6    netip.Addr
	mu          sync.Mutex
	garps, nads int
	first, last time.Time
}

// Listen opens the card of that name in a namespace, until the test ends.
func Listen(tb testing.TB, n *testenv.Namespace, card, ip4, ip6 string) *Listener {
	tb.Helper()
	var conn *packet.Conn
	must(tb, n.Do(func() error {
		i, err := net.InterfaceByName(card)
		if err == nil {
			conn, err = packet.Listen(i, packet.Raw, unix.ETH_P_ALL, nil)
		}
		return err
	}))
	l := &Listener{ip4: netip.MustParseAddr(ip4), ip6: netip.MustParseAddr(ip6)}
	var done sync.WaitGroup
	done.Go(func() { l.read(conn) })
	tb.Cleanup(func() {
		conn.Close()
		done.Wait()
	})
	return l
}

func (l *Listener) read(conn *packet.Conn) {
	b := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		l.mu.Lock()
		before := l.garps + l.nads
		if p, err := arp.Parse(b[:n]); err == nil && p.SenderIP == l.ip4 && p.TargetIP == l.ip4 {
			l.garps++
		}
		if m, err := ndp.Parse(b[:n]); err == nil && m.Advert && !m.Solicited && m.Target == l.ip6 {
			l.nads++
		}
		if l.garps+l.nads > before {
			l.last = time.Now()
			if before == 0 {
				l.first = l.last
			}
		}
		l.mu.Unlock()
	}
}

// WantThree checks that three of each arrived within the time of one start. RFC 5227 §2.3
// has two seconds between announcements.
func (l *Listener) WantThree(tb testing.TB) {
	tb.Helper()
	testenv.Eventually(tb, "three announcements of each", func() error {
		if garps, nads := l.count(); garps != 3 || nads != 3 {
			return fmt.Errorf("%d gratuitous ARP, %d unsolicited NA", garps, nads)
		}
		return nil
	})
	if took := l.last.Sub(l.first); took > 2*time.Second {
		tb.Errorf("the last came %s after the first", took)
	}
}

func (l *Listener) count() (garps, nads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.garps, l.nads
}
