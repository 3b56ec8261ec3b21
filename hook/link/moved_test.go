package link

import (
	"context"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestParseMove checks which messages about a link say that it has moved. A bond's event comes from
// the kernel in TestBondMoves of cmd/lanyard-hook.
func TestParseMove(t *testing.T) {
	message := func(attrs ...*nl.RtAttr) []byte {
		info := nl.NewIfInfomsg(unix.AF_UNSPEC)
		info.Index = 7
		data := info.Serialize()
		for _, a := range attrs {
			data = append(data, a.Serialize()...)
		}
		return data
	}
	event := func(n uint32) *nl.RtAttr { return nl.NewRtAttr(unix.IFLA_EVENT, nl.Uint32Attr(n)) }
	name := nl.NewRtAttr(unix.IFLA_IFNAME, []byte("eth9\x00"))
	port := nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(9))
	moved := message(name, port, event(unix.IFLA_EVENT_NOTIFY_PEERS))
	for what, c := range map[string]struct {
		data   []byte
		master int
		ok     bool
	}{
		"moved":         {message(name, event(unix.IFLA_EVENT_NOTIFY_PEERS)), 0, true},
		"a port":        {moved, 9, true},
		"another event": {message(name, event(unix.IFLA_EVENT_FEATURES)), 0, false},
		"no event":      {message(name), 0, false},
		"empty":         {nil, 0, false},
		"cut":           {moved[:len(moved)-2], 0, false},
	} {
		index, master, ok := parseMove(c.data)
		if ok != c.ok || ok && (index != 7 || master != c.master) {
			t.Errorf("%s: got %d, %d, %v", what, index, master, ok)
		}
	}
}

// TestMovedLinksEnds checks that the watch ends with its context although no message comes.
func TestMovedLinksEnds(t *testing.T) {
	h := mustHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- h.MovedLinks(ctx, func(index int) { t.Errorf("link %d has moved", index) }) }()
	mustVeth(t, h, "eth9")
	cancel()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the watch does not end")
	}
}
