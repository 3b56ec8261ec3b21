package link

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// A namespace's nsid is valid while a process or descriptor holds the namespace, and soon
// after no longer: poststop depends on both.
func TestNumber(t *testing.T) {
	h := mustHost(t)
	cmd := mustContainer(t)
	n, err := h.OpenNetns(cmd.Process.Pid)
	must(t, err)
	id, err := h.NSID(n)
	must(t, err)
	if again, err := h.NSID(n); again != id || err != nil {
		t.Errorf("second call: %d, %v, want %d", again, err, id)
	}
	if other, err := h.NSID(mustNetns(t, h)); other == id || err != nil {
		t.Errorf("another namespace's nsid is %d, %v", other, err)
	}
	wantNumbered(t, h, id)
	must(t, cmd.Process.Kill())
	cmd.Wait()
	wantNumbered(t, h, id) // n holds it
	n.Close()
	// A closed netlink socket releases the namespace after an RCU grace period.
	testenv.Eventually(t, "the namespace's end", func() error {
		exists, err := h.HasNSID(id)
		if exists {
			err = fmt.Errorf("nsid %d is in use", id)
		}
		return err
	})
}

func wantNumbered(tb testing.TB, h *Host, id int) {
	tb.Helper()
	if exists, err := h.HasNSID(id); !exists || err != nil {
		tb.Errorf("nsid %d is in use: %v, %v; want true", id, exists, err)
	}
}

// TestLinkIn checks that an interface is found by the number of its namespace, wherever the
// namespace is pinned, and that an unused number or index finds nothing.
func TestLinkIn(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	cmd := mustContainer(t)
	n, err := h.OpenNetns(cmd.Process.Pid)
	must(t, err)
	id, err := h.NSID(n)
	must(t, err)
	i := mustCreate(t, h, n, specOn(t, p))
	must(t, cmd.Process.Kill())
	cmd.Wait() // n alone holds the namespace: no process and no pin
	found, err := h.LinkIn(id, i.Index)
	if err != nil || found == nil || found.Kind != "macvlan" || found.ParentIndex != p.Index ||
		found.MAC.String() != i.MAC.String() {
		t.Errorf("got %+v, %v, want %+v", found, err, i)
	}
	for what, at := range map[string][2]int{"another index": {id, i.Index + 1000},
		"another number": {id + 100000, i.Index}} {
		if found, err := h.LinkIn(at[0], at[1]); found != nil || err != nil {
			t.Errorf("%s: got %+v, %v", what, found, err)
		}
	}
	addr := netip.MustParsePrefix("192.0.2.7/24")
	must(t, n.AddAddr(i.Index, Addr{Prefix: addr}))
	for _, want := range []struct {
		id, index int
		addr      string
		has       bool
	}{
		{id, i.Index, "192.0.2.7/24", true}, {id, i.Index, "192.0.2.8/24", false}, {id, 1, "192.0.2.7/24", false},
		{id + 100000, i.Index, "192.0.2.7/24", false}, {id, i.Index + 1000, "192.0.2.7/24", false},
	} {
		has, err := h.HasAddrIn(want.id, want.index, []netip.Prefix{netip.MustParsePrefix(want.addr)})
		if has != want.has || err != nil {
			t.Errorf("%+v: got %t, %v", want, has, err)
		}
	}
	must(t, h.DeleteIn(id, *found))
	must(t, h.DeleteIn(id, *found))
	if left, err := n.FindMacvlan(p.Index, 0, i.MAC); left != nil || err != nil {
		t.Errorf("after DeleteIn there is %+v, %v", left, err)
	}
	i = mustCreate(t, h, n, specOn(t, p))
	n.Close()
	testenv.Eventually(t, "the namespace's end", func() error {
		found, err := h.LinkIn(id, i.Index)
		if found != nil {
			err = fmt.Errorf("found %+v", found)
		}
		return err
	})
	must(t, h.DeleteIn(id, i))
}
