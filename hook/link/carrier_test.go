package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
)

// TestMirrorCarriersEnds checks that a subscription ends with its call although many links are still to
// be reported: the service begins another one after each error.
func TestMirrorCarriersEnds(t *testing.T) {
	h := mustHost(t)
	target, err := ns.TempNetNS()
	must(t, err)
	defer target.Close()
	guards, err := h.OpenNetnsPath(fmt.Sprintf("/proc/self/fd/%d", target.Fd())) // its Path is another one's by now
	must(t, err)
	defer guards.Close()
	for i := range 200 { // with their peers, more than the channel of the subscription has room for
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprint(outsidePrefix, i) // each takes longer to look at than to report
		must(t, guards.handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint(insidePrefix, i)}))
	}
	for i := range 10 { // at some of these times the channel is full
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Millisecond)
		must(t, guards.MirrorCarriers(ctx))
		cancel()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var all bytes.Buffer
		must(t, pprof.Lookup("goroutine").WriteTo(&all, 2))
		if !bytes.Contains(all.Bytes(), []byte("linkSubscribeAt")) {
			break
		}
		if time.Now().After(end) {
			t.Fatal(errors.New("subscriptions go on: " + all.String()))
		}
	}
}
