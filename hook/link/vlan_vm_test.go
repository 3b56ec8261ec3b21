//go:build vm

package link

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

func mustVLAN(tb testing.TB, h *Host, name, base string, vid int, proto netlink.VlanProtocol) netlink.Link {
	tb.Helper()
	attrs := linkNamed(name, mustLink(tb, h, base).Attrs().Index)
	return mustAdd(tb, h, &netlink.Vlan{LinkAttrs: attrs, VlanId: vid, VlanProtocol: proto})
}

func mustEnsure(tb testing.TB, h *Host, name string) (p Parent, created bool) {
	tb.Helper()
	p, created, err := h.EnsureParent(withTimeout(tb, 5*time.Second), ParentSpec{Name: name}, true)
	must(tb, err)
	return p, created
}

func TestEnsureParentMakesVLAN(t *testing.T) {
	h := mustHost(t)
	trunk := mustResolve(t, h, mustVeth(t, h, "trunk"))
	if _, _, err := h.EnsureParent(context.Background(), ParentSpec{Name: "trunk.50"}, false); !errors.Is(err, ErrNoLink) {
		t.Errorf("without create: %v", err)
	}
	p, created := mustEnsure(t, h, "trunk.50")
	l := mustLink(t, h, "trunk.50")
	want := Parent{
		Name: "trunk.50", Index: l.Attrs().Index, MAC: trunk.MAC, MTU: 1500, Up: true, Ours: true,
		Trunk: "trunk", TrunkIndex: trunk.Index, Chain: []int{l.Attrs().Index, trunk.Index},
		Tags: ether.Tags{{TPID: 0x8100, VID: 50}},
	}
	if diff := cmp.Diff(want, p); diff != "" || !created {
		t.Errorf("created %v: %s", created, diff)
	}
	v := l.(*netlink.Vlan)
	if v.VlanId != 50 || v.VlanProtocol != netlink.VLAN_PROTOCOL_8021Q || v.ParentIndex != trunk.Index ||
		v.Alias != "lanyard" || v.Group != group || !isUp(v) {
		t.Errorf("the kernel reports %+v", v)
	}
	for key, want := range map[string]string{"ipv6/conf/trunk.50/disable_ipv6": "1",
		"ipv4/conf/trunk.50/arp_ignore": "1"} {
		must(t, h.Do(func() error {
			got, err := os.ReadFile("/proc/sys/net/" + key)
			if strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q", key, got)
			}
			return err
		}))
	}
	// The second call only finds it, and sets it up because it is down.
	must(t, h.handle.LinkSetDown(l))
	again, created := mustEnsure(t, h, "trunk.50")
	if diff := cmp.Diff(want, again); diff != "" || created || !isUp(mustLink(t, h, "trunk.50")) {
		t.Errorf("again: created %v: %s", created, diff)
	}
	waitFor(t, "a carrier", func() bool { why, err := h.Down(p); return err == nil && why == "" })
	must(t, h.handle.LinkSetDown(mustLink(t, h, "trunkp")))
	if why, err := h.Down(p); err != nil || why != `"trunk" has no carrier` {
		t.Errorf("%q, %v", why, err)
	}
	must(t, h.RemoveParent(context.Background(), "trunk.50", neverNeeded))
	if l, err := linkByName(h.handle, "trunk.50"); l != nil || err != nil {
		t.Errorf("left: %v, %v", l, err)
	}
	must(t, h.RemoveParent(context.Background(), "trunk.50", neverNeeded)) // deleted already
	mustLink(t, h, "trunk")
}

func TestEnsureParentRefusesVLAN(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	mustVeth(t, h, "other")
	mustVeth(t, h, "down")
	must(t, h.handle.LinkSetDown(mustLink(t, h, "down")))
	mustVLAN(t, h, "trunk.50", "trunk", 60, netlink.VLAN_PROTOCOL_8021Q)
	mustVLAN(t, h, "trunk.51", "other", 51, netlink.VLAN_PROTOCOL_8021Q)
	mustVLAN(t, h, "trunk.52", "trunk", 52, netlink.VLAN_PROTOCOL_8021AD)
	mustVLAN(t, h, "foo", "trunk", 53, netlink.VLAN_PROTOCOL_8021Q)
	mustAdd(t, h, &netlink.Dummy{LinkAttrs: linkNamed("trunk.54", 0)})
	before := len(mustLinks(t, h))
	for name, want := range map[string]string{
		"trunk.50":  `parent "trunk.50": is VLAN 60 on "trunk", not VLAN 50 on "trunk": rename`,
		"trunk.51":  `parent "trunk.51": is VLAN 51 on "other", not VLAN 51 on "trunk": rename`,
		"trunk.52":  `parent "trunk.52": is VLAN 52 by protocol 0x88a8 on "trunk", not VLAN 52`,
		"trunk.53":  `parent "trunk.53": cannot create it: VLAN 53 on "trunk" exists already, as "foo": use that as parent`,
		"trunk.54":  `parent "trunk.54": is a link of type "dummy", not VLAN 54 on "trunk": rename`,
		"down.50":   `parent "down.50": cannot create it: "down" is down: run "ip link set down up"`,
		"absent.50": `parent "absent.50": no such link, and no link "absent" to create it on`,
	} {
		_, created, err := h.EnsureParent(withTimeout(t, 5*time.Second), ParentSpec{Name: name}, true)
		if err == nil || !strings.HasPrefix(err.Error(), want) || created {
			t.Errorf("got  %v (created %v)\nwant %s", err, created, want)
		}
	}
	if after := len(mustLinks(t, h)); after != before {
		t.Errorf("%d links, %d before", after, before)
	}
	// A link that is not ours stays, VLAN or not, whatever its name.
	for _, name := range []string{"trunk.50", "trunk.54", "foo"} {
		if err := h.RemoveParent(context.Background(), name, neverNeeded); !errors.Is(err, ErrForeign) {
			t.Errorf("remove %s: %v", name, err)
		}
		mustLink(t, h, name)
	}
}

func mustLinks(tb testing.TB, h *Host) []netlink.Link {
	tb.Helper()
	list, err := dump(h.handle.LinkList)
	must(tb, err)
	return list
}

// The administrator's own VLANs are used unchanged, also if they are down.
func TestExistingVLANIsUsedAndKept(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	for _, name := range []string{"trunk.50", "foo"} {
		mustVLAN(t, h, name, "trunk", 50+len(name), netlink.VLAN_PROTOCOL_8021Q)
	}
	must(t, h.handle.LinkSetName(mustLink(t, h, "trunk.50"), "trunk.58"))
	for _, name := range []string{"trunk.58", "foo"} {
		p, created := mustEnsure(t, h, name)
		if p.Ours || created || p.Trunk != "trunk" || len(p.Tags) != 1 {
			t.Errorf("%+v, created %v", p, created)
		}
		if l := mustLink(t, h, name); isUp(l) || l.Attrs().Alias != "" {
			t.Errorf("%s was changed: %+v", name, l.Attrs())
		}
		if why, err := h.Down(p); err != nil || why != `"`+name+`" is down` {
			t.Errorf("%q, %v", why, err)
		}
	}
}

// The next process finishes and marks a link that a killed one left unfinished.
func TestUnfinishedParentIsFinished(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	must(t, os.MkdirAll(h.lockDir, 0o755))
	must(t, os.WriteFile(filepath.Join(h.lockDir, "parent-trunk.50.lock"), []byte("making\n"), 0o600))
	mustVLAN(t, h, "trunk.50", "trunk", 50, netlink.VLAN_PROTOCOL_8021Q)
	if p, created := mustEnsure(t, h, "trunk.50"); !p.Ours || created || !isUp(mustLink(t, h, "trunk.50")) {
		t.Errorf("%+v, created %v", p, created)
	}
	if text, err := os.ReadFile(filepath.Join(h.lockDir, "parent-trunk.50.lock")); err != nil || len(text) != 0 {
		t.Errorf("the lock file says %q, %v", text, err)
	}
	must(t, h.RemoveParent(context.Background(), "trunk.50", neverNeeded))
}

func TestEnsureParentConcurrently(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	var made atomic.Int32
	var all sync.WaitGroup
	ctx := withTimeout(t, 30*time.Second)
	for range 16 {
		all.Go(func() {
			p, created, err := h.EnsureParent(ctx, ParentSpec{Name: "trunk.50"}, true)
			if err != nil || !p.Ours {
				t.Errorf("%+v, %v", p, err)
			}
			if created {
				made.Add(1)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

// Waiting for a lock that is never released ends with the caller's context.
func TestParentLockEndsWithContext(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	lock, err := h.lockParent(context.Background(), "trunk.50")
	must(t, err)
	if _, _, err := h.EnsureParent(withTimeout(t, 30*time.Millisecond), ParentSpec{Name: "trunk.50"}, true); err == nil ||
		!strings.Contains(err.Error(), `parent "trunk.50": cannot lock it`) {
		t.Errorf("%v", err)
	}
	must(t, lock.Close())
	mustEnsure(t, h, "trunk.50")
}

func TestResolveQinQ(t *testing.T) {
	h := mustHost(t)
	trunk := mustResolve(t, h, mustVeth(t, h, "trunk"))
	mustVLAN(t, h, "trunk.100", "trunk", 100, netlink.VLAN_PROTOCOL_8021AD)
	mustVLAN(t, h, "trunk.7", "trunk", 7, netlink.VLAN_PROTOCOL_8021Q)
	for _, name := range []string{"trunk.100", "trunk.7"} {
		mustUp(t, h, name)
	}
	for name, want := range map[string]ether.Tags{
		"trunk.100.200": {{TPID: 0x88a8, VID: 100}, {TPID: 0x8100, VID: 200}},
		"trunk.7.8":     {{TPID: 0x8100, VID: 7}, {TPID: 0x8100, VID: 8}},
	} {
		p, created := mustEnsure(t, h, name)
		if diff := cmp.Diff(want, p.Tags); diff != "" || !created || p.Trunk != "trunk" || p.TrunkIndex != trunk.Index {
			t.Errorf("%+v, created %v: %s", p, created, diff)
		}
	}
}

// Both VLANs of a QinQ parent are created, and both are removed unless one is needed.
func TestQinQIsCreatedAndRemoved(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	ctx := withTimeout(t, 10*time.Second)
	inner := func(name string) ParentSpec { return ParentSpec{Name: name, Outer: 0x88a8} }
	p, created, err := h.EnsureParent(ctx, inner("trunk.100.200"), true)
	must(t, err)
	if diff := cmp.Diff(ether.Tags{{TPID: 0x88a8, VID: 100}, {TPID: 0x8100, VID: 200}}, p.Tags); diff != "" || !created ||
		!p.Ours {
		t.Errorf("%+v, created %v: %s", p, created, diff)
	}
	if l := mustLink(t, h, "trunk.100"); l.Attrs().Alias != mark || !isUp(l) {
		t.Errorf("the outer VLAN is %+v", l.Attrs())
	}
	if _, err := h.Resolve(ParentSpec{Name: "trunk.100"}); err == nil ||
		!strings.Contains(err.Error(), "by protocol 0x88a8 on \"trunk\", not VLAN 100 on") {
		t.Errorf("resolved as 802.1Q: %v", err)
	}
	_, _, err = h.EnsureParent(ctx, inner("trunk.100.201"), true)
	must(t, err)
	must(t, h.RemoveParent(ctx, "trunk.100.200", neverNeeded))
	mustLink(t, h, "trunk.100") // .201 is on it
	must(t, h.RemoveParent(ctx, "trunk.100.201", func(name string) bool { return name == "trunk.100" }))
	mustLink(t, h, "trunk.100") // it is needed
	_, _, err = h.EnsureParent(ctx, inner("trunk.100.202"), true)
	must(t, err)
	must(t, h.RemoveParent(ctx, "trunk.100.202", neverNeeded))
	if l, err := linkByName(h.handle, "trunk.100"); l != nil || err != nil {
		t.Errorf("the outer VLAN is left: %v, %v", l, err)
	}
	// An outer VLAN that is not ours stays.
	mustVLAN(t, h, "trunk.7", "trunk", 7, netlink.VLAN_PROTOCOL_8021Q)
	mustUp(t, h, "trunk.7")
	mustEnsure(t, h, "trunk.7.8")
	if _, err := h.Resolve(inner("trunk.7.8")); err == nil ||
		!strings.Contains(err.Error(), `is VLAN 7 on "trunk", not by protocol 0x88a8`) {
		t.Errorf("resolved as 802.1ad: %v", err)
	}
	must(t, h.RemoveParent(ctx, "trunk.7.8", neverNeeded))
	mustLink(t, h, "trunk.7")
}

func TestDummyParent(t *testing.T) {
	h := mustHost(t)
	ctx := withTimeout(t, 10*time.Second)
	want := ParentSpec{Name: "dm-0123456789", Dummy: true}
	if _, _, err := h.EnsureParent(ctx, want, false); !errors.Is(err, ErrNoLink) {
		t.Errorf("without create: %v", err)
	}
	p, created, err := h.EnsureParent(ctx, want, true)
	must(t, err)
	if !created || !p.Ours || !p.Up || p.Trunk != want.Name || len(p.Tags) != 0 {
		t.Errorf("%+v, created %v", p, created)
	}
	must(t, h.RemoveParent(ctx, want.Name, neverNeeded))
	mustVeth(t, h, want.Name)
	if _, _, err := h.EnsureParent(ctx, want, true); err == nil ||
		!strings.Contains(err.Error(), `is a link of type "veth", not a dummy`) {
		t.Errorf("%v", err)
	}
}

// A VLAN with a trunk in another namespace cannot be a parent: the trunk is not visible.
func TestVLANOnAnotherNamespacesLink(t *testing.T) {
	h := mustHost(t)
	there := mustNetns(t, h)
	mustVeth(t, h, "trunk")
	l := mustVLAN(t, h, "far", "trunk", 50, netlink.VLAN_PROTOCOL_8021Q)
	must(t, h.handle.LinkSetNsFd(l, there.Fd()))
	other := &Host{handle: there.handle, lockDir: h.lockDir}
	if _, err := other.Resolve(ParentSpec{Name: "far"}); err == nil ||
		!strings.Contains(err.Error(), "in another network namespace") {
		t.Errorf("%v", err)
	}
	if _, _, err := h.EnsureParent(context.Background(), ParentSpec{Name: "trunk.50"}, true); err == nil ||
		!strings.Contains(err.Error(), "perhaps in another network namespace") {
		t.Errorf("%v", err)
	}
}

func TestBondPorts(t *testing.T) {
	h := mustHost(t)
	bond := netlink.NewLinkBond(linkNamed("bond0", 0))
	bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
	mustAdd(t, h, bond)
	port := mustAdd(t, h, &netlink.Dummy{LinkAttrs: linkNamed("port", 0)})
	must(t, h.handle.LinkSetMasterByIndex(port, mustLink(t, h, "bond0").Attrs().Index))
	if _, err := h.Resolve(ParentSpec{Name: "port"}); err == nil ||
		!strings.HasSuffix(err.Error(), `is a port of the bond "bond0" and cannot carry a network: use "bond0" as parent`) {
		t.Errorf("%v", err)
	}
	mustUp(t, h, "bond0")
	if p, _ := mustEnsure(t, h, "bond0.50"); p.Trunk != "bond0" {
		t.Errorf("%+v", p)
	}
}

func TestParentInUseByIPVlan(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	mustAdd(t, h, &netlink.IPVlan{LinkAttrs: linkNamed("ipv0", p.Index), Mode: netlink.IPVLAN_MODE_L2})
	if _, err := h.CreateMacvlan(context.Background(), mustNetns(t, h), specOn(t, p)); err == nil ||
		!strings.Contains(err.Error(), `parent "trunk" is in use by another kind of link`) {
		t.Errorf("%v", err)
	}
	if _, err := h.Resolve(ParentSpec{Name: "ipv0"}); err == nil ||
		!strings.Contains(err.Error(), "is of type ipvlan itself") {
		t.Errorf("%v", err)
	}
}

// The same MAC can be used on two VLANs of one trunk.
func TestMacvlanOnVLAN(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	for _, name := range []string{"trunk.50", "trunk.60"} {
		p, _ := mustEnsure(t, h, name)
		n := mustNetns(t, h)
		i := mustCreate(t, h, n, specOn(t, p))
		if got, err := h.ParentUnicast(p.Index); err != nil || len(got) != 1 || got[0].String() != i.MAC.String() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if i.ParentIndex != p.Index {
			t.Errorf("%+v", i)
		}
	}
}

// TestAnnouncedVLAN checks that the switch receives the VLAN of a parent with GVRP or MVRP: frames to
// the group of IEEE 802.1Q-2018, table 10-1, with a join for VLAN 50.
func TestAnnouncedVLAN(t *testing.T) {
	group := net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0x21}
	for name, c := range map[string]struct {
		spec ParentSpec
		want func(frame []byte) bool
	}{
		"gvrp": {ParentSpec{Name: "trunk.50", GVRP: true}, func(f []byte) bool {
			// LLC; GARP: protocol 1, attribute type 1, 4 bytes, event 1 (JoinEmpty) or 2 (JoinIn), VLAN 50.
			return bytes.HasPrefix(f[14:], []byte{0x42, 0x42, 3, 0, 1, 1, 4}) && (f[21] == 1 || f[21] == 2) &&
				bytes.Equal(f[22:24], []byte{0, 50})
		}},
		"mvrp": {ParentSpec{Name: "trunk.50", MVRP: true}, func(f []byte) bool {
			// Version 0, attribute type 1, 2 bytes, one value, VLAN 50 first.
			return bytes.Equal(f[12:21], []byte{0x88, 0xf5, 0, 1, 2, 0, 1, 0, 50})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := mustHost(t)
			mustVeth(t, h, "trunk")
			var conn *packet.Conn
			must(t, h.Do(func() (err error) {
				peer := &net.Interface{Index: mustLink(t, h, "trunkp").Attrs().Index}
				conn, err = packet.Listen(peer, packet.Raw, unix.ETH_P_ALL, nil)
				return err
			}))
			defer conn.Close()
			must(t, conn.JoinGroup(group))
			must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
			_, created, err := h.EnsureParent(withTimeout(t, 5*time.Second), c.spec, true)
			if err != nil || !created {
				t.Fatalf("created %v, %v", created, err)
			}
			var seen []string
			for buf := make([]byte, 1<<11); ; {
				n, _, err := conn.ReadFrom(buf)
				if err != nil {
					t.Fatalf("%v; frames to the group: %q", err, seen)
				}
				if frame := buf[:n]; n > 24 && bytes.Equal(frame[:6], group) {
					if c.want(frame) {
						return
					}
					seen = append(seen, hex.EncodeToString(frame))
				}
			}
		})
	}
}
