package attach_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// wantAll checks that there is a verdict for each gateway, and that all have the code.
func wantAll(t *testing.T, what string, verdicts []verify.Verdict, gateways int, code verify.Code) {
	t.Helper()
	if len(verdicts) != gateways {
		t.Fatalf("%s: %+v, want %d verdicts", what, verdicts, gateways)
	}
	for _, v := range verdicts {
		if v.Code != code {
			t.Errorf("%s: %+v, want %s", what, v, code)
		}
	}
}

// TestAnswerNotDelivered drops incoming frames behind the trunk's program: the trunk sees the gateway's
// answers, and the container does not.
func TestAnswerNotDelivered(t *testing.T) {
	w, _ := lan(t, nil)
	undo := w.DropLast(w.Host, w.Trunk, testenv.In)
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	wantAll(t, "attached", w.Record().Verdicts, 2, verify.NotDelivered)
	wantAll(t, "verified again", w.verifyAgain(), 2, verify.NotDelivered)
	w.Refused("strict", w.Attach("c2", testenv.NewContainer(t), "network=web", "verify=strict"), 1,
		"not-delivered", "did not reach the container", `on "eth9" that drops it`)
	undo()
	wantAll(t, "without the filter", w.verifyAgain(), 2, verify.OK)
}

// repeat has a station send frames again and again until the test ends.
func repeat(t *testing.T, s *testenv.Station, frames ...[]byte) {
	t.Helper()
	r := s.Respond(func(testenv.Asked) []testenv.Reply { return nil })
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
			for _, f := range frames {
				_ = r.Send(f) // a frame that is lost is sent again
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		<-ended
		r.Stop()
	})
}

// TestGatewayOnlyAnnouncesItself has the switch drop all frames of the host, while the gateway announces
// itself to all, as a VRRP router does. That is no answer, whatever asks, and whether or not the trunk is
// watched.
func TestGatewayOnlyAnnouncesItself(t *testing.T) {
	for _, mode := range []network.Mode{network.ModeBridge, network.ModePassthru} {
		t.Run(string(mode), func(t *testing.T) {
			w, gw := lan(t, func(d *network.Definition) { d.Mode = mode })
			defer w.Foreign(w.Switch, "trunk", testenv.In, 2)() // TC_ACT_SHOT
			gateway4, gateway6 := netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("fd50::1")
			advert, err := ndp.Announce(gw.MAC, gateway6)
			must(t, err)
			all := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
			reply, err := arp.Packet{Destination: all, Source: gw.MAC, Reply: true,
				Sender: gw.MAC, SenderIP: gateway4, Target: all, TargetIP: gateway4}.Frame()
			must(t, err)
			repeat(t, gw, advert, reply)
			c1 := testenv.NewContainer(t)
			w.MustAttach("c1", c1, "network=web")
			wantAll(t, "attached", w.Record().Verdicts, 2, verify.GatewaySilent)
			wantAll(t, "verified again", w.verifyAgain(), 2, verify.GatewaySilent)
			w.DetachAndEnd("c1", c1)
			w.attachUnobserved(testenv.NewContainer(t))
			wantAll(t, "not watched", w.Record().Verdicts, 2, verify.GatewaySilent)
		})
	}
}

// TestUnicastFiltered has the switch drop the frames to a container, and not those to the parent or to all
// nodes.
func TestUnicastFiltered(t *testing.T) {
	w, _ := lan(t, nil)
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	undo := w.DropTo(w.Switch, "trunk", testenv.Out, w.Record().MAC)
	wantAll(t, "filtered", w.verifyAgain(), 2, verify.MACFiltered)
	undo()
	wantAll(t, "not filtered", w.verifyAgain(), 2, verify.OK)
}

// TestGatewayAnswersPassthru checks that a gateway is good in mode passthru, where the container has the
// parent's MAC.
func TestGatewayAnswersPassthru(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.Mode = network.ModePassthru })
	w.MustAttach("c1", testenv.NewContainer(t), "network=web", "verify=strict")
	wantAll(t, "attached", w.Record().Verdicts, 2, verify.OK)
	wantAll(t, "verified again", w.verifyAgain(), 2, verify.OK)
}

// TestJoinedWithOtherSettings has a second container of a namespace request what the interface was not
// created with. Without an error, the container would start without the route or the MTU that it needs.
func TestJoinedWithOtherSettings(t *testing.T) {
	w, _ := lan(t, nil)
	plain, routed := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", plain, "network=web", "default-route=false", "mtu=1400")
	w.Refused("default route", w.Attach("c2", plain, "network=web", "default-route=true"), 1,
		"default-route=true", `"eth0"`, "starts first")
	w.Refused("MTU", w.Attach("c3", plain, "network=web", "mtu=1300"), 1, "MTU 1300", "1400", "starts first")
	w.MustAttach("c4", routed, "network=web")
	w.Refused("no default route", w.Attach("c5", routed, "network=web", "default-route=false"), 1, "default-route=false")
	w.MustAttach("c1", plain, "network=web", "default-route=false", "mtu=1400") // again, as prestart and createRuntime do
	w.MustAttach("c6", plain, "network=web")
	w.MustAttach("c7", routed, "network=web", "default-route=true", "mtu=1500")
	if recs := w.Records(); len(recs) != 2 {
		t.Errorf("got %d attachments, want 2", len(recs))
	}
}

// TestJoinProvesAgain checks that the gateway is asked again when a container in mode strict joins an
// interface with an old verdict.
func TestJoinProvesAgain(t *testing.T) {
	w, gw := lan(t, func(d *network.Definition) { d.Deadline = network.Duration(300 * time.Millisecond) })
	pod := testenv.NewContainer(t)
	w.MustAttach("c1", pod, "network=web", "verify=strict")
	a := w.Record()
	a.Created = a.Created.Add(-time.Hour)
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		return l.DB.Update(ctx, func(tx record.Tx) error { return record.Put(tx, &a) })
	}))
	gw.SetPort(false)
	next := testenv.JoinNamespace(t, pod.Namespace)
	w.Refused("gateway off", w.Attach("c2", next, "network=web", "verify=strict"), 1,
		"verify mode strict", "-silent", "192.168.50.1")
	w.SetTrunk(false)
	w.Refused("no carrier", w.Attach("c3", next, "network=web"), 1, "verify mode strict", "parent-down")
	w.SetTrunk(true)
	gw.SetPort(true)
	w.MustAttach("c4", next, "network=web")
}

// TestEndedContainerIsNotOK ends a container without its poststop hook. What "lanyard ps" says of it is not
// the verdict of its start.
func TestEndedContainerIsNotOK(t *testing.T) {
	w, _ := lan(t, nil)
	running, c := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", running, "network=web")
	w.MustAttach("c2", c, "network=web")
	must(t, c.Kill())
	c.End(t)
	must(t, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		recs := w.Records()
		changes, err := l.Changes(recs)
		for _, a := range recs {
			list := changes[a.ID]
			gone := len(list) == 1 && list[0].Code == verify.InterfaceGone && strings.Contains(list[0].Text, "lanyard gc")
			if ended := a.Containers[0].ID == "c2"; ended != gone || !ended && len(list) > 0 {
				t.Errorf("%s: the changes are %+v", a.Containers[0].ID, list)
			}
		}
		return err
	}))
}
