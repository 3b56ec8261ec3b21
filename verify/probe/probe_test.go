package probe_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// TestAnswers asks for a gateway's addresses, and for free ones.
func TestAnswers(t *testing.T) {
	l, gw := mustLab(t)
	p := mustContainerLink(t, l)
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		for _, addr := range []netip.Addr{gateway4, gateway6} {
			ask(t, prober, verify.Question{Addr: addr}, gw.MAC)
			ask(t, prober, verify.Question{Addr: addr}, gw.MAC) // again
			ask(t, prober, verify.Question{Addr: addr, Conflict: true}, gw.MAC)
		}
		for _, addr := range []netip.Addr{free4, free6} {
			askSilence(t, prober, verify.Question{Addr: addr, Conflict: true})
			askSilence(t, prober, verify.Question{Addr: addr})
		}
	})
}

// TestLinkLocalGateway asks for a link-local address without a zone: the prober's interface
// determines it.
func TestLinkLocalGateway(t *testing.T) {
	l, gw := mustLab(t)
	gw.AddAddr("fe80::1/64")
	p := mustContainerLink(t, l)
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		ask(t, prober, verify.Question{Addr: netip.MustParseAddr("fe80::1")}, gw.MAC)
		if err := prober.Ask(verify.Question{Addr: netip.MustParseAddr("fe80::1%lan0")}); err == nil {
			t.Error("a zone was accepted")
		}
	})
}

// TestSibling checks that siblings on the same parent answer one another without the trunk.
func TestSibling(t *testing.T) {
	l, _ := mustLab(t)
	p := mustContainerLink(t, l)
	sibling := mustMacvlan(t, l, testenv.NewNamespace(t, "sibling"), "lan1", ether.MAC{0x02, 0x42, 192, 168, 50, 3})
	addAddr(t, sibling, "192.168.50.3/24")
	addAddr(t, sibling, "fd50::3/64")
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		for _, a := range []string{"192.168.50.3", "fd50::3"} {
			ask(t, prober, verify.Question{Addr: netip.MustParseAddr(a), Conflict: true}, sibling.mac)
		}
	})
}

// TestContextEnds checks that Next returns when the context ends, whether before or during the
// wait.
func TestContextEnds(t *testing.T) {
	l, _ := mustLab(t)
	p := mustContainerLink(t, l)
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		if err := prober.Ask(verify.Question{Addr: free4}); err != nil {
			t.Error(err)
		}
		ended, end := context.WithCancel(context.Background())
		end()
		if _, err := prober.Next(ended, answerTimeout); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		timer := time.AfterFunc(20*time.Millisecond, cancel)
		defer timer.Stop()
		if _, err := prober.Next(ctx, answerTimeout); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while waiting: %v", err)
		}
		start := time.Now()
		ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		for name, next := range map[string]func() (verify.Answer, error){
			"deadline":     func() (verify.Answer, error) { return prober.Next(ctx, answerTimeout) },
			"wait is over": func() (verify.Answer, error) { return prober.Next(context.Background(), 20*time.Millisecond) },
		} {
			if _, err := next(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if took := time.Since(start); took < 20*time.Millisecond || took >= answerTimeout {
			t.Errorf("returned after %v, not after the deadlines", took)
		}
	})
}

// TestAnswerAfterTimeout checks that a prober still receives answers after a wait that timed out.
func TestAnswerAfterTimeout(t *testing.T) {
	l, gw := mustLab(t)
	p := mustContainerLink(t, l)
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		askSilence(t, prober, verify.Question{Addr: free4, Conflict: true})
		ask(t, prober, verify.Question{Addr: gateway4}, gw.MAC)
	})
}

// TestLinkDown checks that a link that is down is not an error of the prober: there is no answer.
func TestLinkDown(t *testing.T) {
	l, _ := mustLab(t)
	p := mustContainerLink(t, l)
	trunk, err := l.Host.Netlink().LinkByName(l.Trunk)
	must(t, err)
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		must := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		must(l.Host.Netlink().LinkSetDown(trunk))
		askSilence(t, prober, verify.Question{Addr: gateway4})
		must(l.Host.Netlink().LinkSetUp(trunk))
	})
}

// TestRound runs verify.Round with each prober.
func TestRound(t *testing.T) {
	l, gw := mustLab(t)
	claimant := l.AddClaimant(0, "192.168.50.9/24")
	p := mustContainerLink(t, l)
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		f, err := verify.Round(context.Background(), prober, verify.Plan{
			Addrs: []netip.Addr{free4, free6}, Gateways: []netip.Addr{gateway4, gateway6}, Deadline: answerTimeout,
		})
		if err != nil || len(f.Claimants) > 0 ||
			fmt.Sprint(f.Gateways[gateway4].MAC, f.Gateways[gateway6].MAC) != fmt.Sprint(gw.MAC, gw.MAC) {
			t.Errorf("free addresses: %+v, %v", f, err)
		}
		f, err = verify.Round(context.Background(), prober, verify.Plan{
			Addrs: []netip.Addr{netip.MustParseAddr("192.168.50.9")}, Window: answerTimeout, Deadline: answerTimeout,
		})
		if err != nil || len(f.Claimants) != 1 || f.Claimants[0].MAC.String() != claimant.MAC.String() {
			t.Errorf("held address: %+v, %v", f, err)
		}
	})
}

// TestRouters checks that routers advertise themselves when asked. Only Socket, which reads frames,
// can receive that.
func TestRouters(t *testing.T) {
	l, gw := mustLab(t)
	r := gw.Respond(func(q testenv.Asked) []testenv.Reply {
		if q.Addr.IsValid() {
			return nil
		}
		return []testenv.Reply{{MAC: gw.MAC}}
	})
	defer r.Stop()
	p := mustContainerLink(t, l)
	must(t, p.Do(func() error {
		s, err := probe.OpenSocket(p.ifindex, p.mac)
		if err != nil {
			return err
		}
		defer s.Close()
		f, err := verify.Round(context.Background(), s,
			verify.Plan{Routers: true, From: p.mac.LinkLocal(), Deadline: answerTimeout})
		mac := gw.MAC
		if len(f.Routers) != 1 || f.Routers[0].Addr != mac.LinkLocal() || f.Routers[0].MAC != mac {
			t.Errorf("routers are %+v, want %s", f.Routers, mac)
		}
		return err
	}))
}

// TestAnswerReadLate checks that an answer that has arrived counts even if a busy host reads it
// after the round's time.
func TestAnswerReadLate(t *testing.T) {
	l, _ := mustLab(t)
	p := mustContainerLink(t, l)
	withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
		for range 20 {
			f, err := verify.Round(context.Background(), prober, verify.Plan{Gateways: []netip.Addr{gateway4}, Deadline: 1})
			if err != nil {
				t.Error(err)
			}
			if len(f.Gateways) == 1 {
				return
			}
		}
		t.Error("none of 20 answers was read in a round of no time")
	})
}
