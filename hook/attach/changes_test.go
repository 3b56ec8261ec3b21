package attach_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// changes returns how the interface of the one attachment is not as it was given.
func (w *world) changes() (list []verify.Change) {
	w.TB.Helper()
	recs := w.Records()
	must(w.TB, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		all, err := l.Changes(recs)
		list = all[recs[0].ID]
		return err
	}))
	return list
}

// wantChange checks that verify reports exactly one change, with a code and words. "" is the code of
// a change that traffic works with.
func (w *world) wantChange(code verify.Code, words ...string) {
	w.TB.Helper()
	list := w.changes()
	if len(list) != 1 || list[0].Code != code {
		w.TB.Errorf("changes are %+v, want one %q", list, code)
		return
	}
	for _, word := range words {
		if !strings.Contains(list[0].Text, word) {
			w.TB.Errorf("%q lacks %q", list[0].Text, word)
		}
	}
	for _, v := range w.verdicts() {
		if code != "" && (v.Code != code || v.Text != list[0].Text || v.Code.Good()) || code == "" && v.Code != verify.OK {
			w.TB.Errorf("verdict is %+v, want %q", v, code)
		}
	}
}

// TestChangedInside changes the interface as a container's root can.
func TestChangedInside(t *testing.T) {
	for what, c := range map[string]struct {
		commands string
		code     verify.Code
		words    []string
	}{
		"mac": {"link set eth0 address 02:00:00:00:00:77", verify.InterfaceChanged,
			[]string{`"eth0"`, "02:42:c0:a8:32:09", "02:00:00:00:00:77"}},
		"renamed": {"link set eth0 down\nlink set eth0 name lan0\nlink set lan0 up\n" +
			"addr add fd50::2/64 dev lan0 nodad\nroute add default via 192.168.50.1\nroute add default via fd50::1",
			"", []string{`"eth0" was renamed to "lan0"`}},
		"down":    {"link set eth0 down", verify.InterfaceChanged, []string{"was set down"}},
		"deleted": {"link del eth0", verify.InterfaceGone, []string{"is gone", "start the container again"}},
		"deleted, and another link has its ifindex": {
			"link add tmp type veth peer name tmpx\nlink del eth0\n" +
				"link add other index INDEX type veth peer name otherx", verify.InterfaceGone, nil},
		"flushed":    {"-4 addr flush dev eth0", verify.InterfaceChanged, []string{"address 192.168.50.9/24"}},
		"v6 flushed": {"-6 addr del fd50::2/64 dev eth0", verify.InterfaceChanged, []string{"address fd50::2/64"}},
		"added":      {"addr add 192.168.50.200/32 dev eth0", "", []string{"192.168.50.200/32"}},
		"no default": {"route del default", verify.InterfaceChanged, []string{"default route through 192.168.50.1"}},
		"another default": {"link add tun0 type veth peer name tun0x\nlink set tun0 up\nroute replace default dev tun0", "",
			[]string{"through 192.168.50.1", `leads through interface "tun0"`}},
	} {
		t.Run(what, func(t *testing.T) {
			w, _ := lan(t, hooklab.MACFromAddress)
			ns := testenv.NewContainer(t)
			w.MustAttach("c1", ns, "network=web", "ip=192.168.50.9")
			if list := w.changes(); len(list) != 0 {
				t.Errorf("a healthy container has %+v", list)
			}
			w.change(ns, strings.ReplaceAll(c.commands, "INDEX", strconv.Itoa(w.Record().Index)))
			w.wantChange(c.code, c.words...)
		})
	}
}

// change runs ip with each line in the container.
func (w *world) change(ns *testenv.Container, commands string) {
	w.TB.Helper()
	for line := range strings.Lines(commands) {
		_, err := ns.Exec("ip", strings.Fields(line)...)
		must(w.TB, err)
	}
}

// TestMovedInside moves the interface to another namespace.
func TestMovedInside(t *testing.T) {
	w, _ := lan(t, nil)
	ns, other := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", ns, "network=web")
	w.change(ns, "link set eth0 netns "+strconv.Itoa(other.Pid))
	w.wantChange(verify.InterfaceGone, "moved to another namespace")
}

// TestUnchangedInside has containers that are as they should be: a VPN next to the default route, one
// that takes a default route over, and one that configures its own addresses.
func TestUnchangedInside(t *testing.T) {
	healthy := func(w *world, what string) {
		t.Helper()
		if list := w.changes(); len(list) != 0 {
			t.Errorf("%s: changes are %+v", what, list)
		}
	}
	w, _ := lan(t, nil)
	ns := testenv.NewContainer(t)
	w.MustAttach("c1", ns, "network=web")
	w.change(ns, "link add tun0 type veth peer name tun0x\nlink set tun0 up\n"+
		"route add 0.0.0.0/1 dev tun0\nroute add 128.0.0.0/1 dev tun0")
	healthy(w, "VPN")
	w.MustDetach("c1")

	ns = testenv.NewContainer(t)
	w, _ = lan(t, nil)
	w.change(ns, "link add eng0 type veth peer name eng0x\nlink set eng0 up\nroute add default dev eng0")
	w.MustAttach("c2", ns, "network=web", "default-route=true")
	healthy(w, "takes over")

	w, _ = lan(t, func(d *network.Definition) { d.Subnets, d.IPAM = nil, network.IPAMNone })
	ns = testenv.NewContainer(t)
	w.MustAttach("c3", ns, "network=web")
	w.change(ns, "addr add 192.168.50.33/24 dev eth0\nroute add default via 192.168.50.1")
	healthy(w, "without addresses of the network")
}

// TestChangedMACInPod checks that containers join and leave a pod with an interface that has another
// MAC than it was given, and that it does not stay in the namespace with the address.
func TestChangedMACInPod(t *testing.T) {
	w, _ := lan(t, nil)
	before := w.Links(w.Host)
	pod := testenv.NewContainer(t)
	pod.Pin(t)
	w.MustAttach("infra", pod, "network=web")
	w.change(pod, "link set eth0 address 02:00:00:00:00:77")
	app := testenv.JoinNamespace(t, pod.Namespace)
	w.Refused("strict", w.Attach("app", app, "network=web", "verify=strict"), 1,
		"fails verify mode strict: interface-changed", "does not have MAC", "02:00:00:00:00:77")
	w.MustAttach("app", app, "network=web")
	if a := w.Record(); len(a.Containers) != 2 {
		t.Errorf("containers are %+v", a.Containers)
	}
	must(t, app.Kill())
	w.MustDetach("app")
	app.Reap()
	must(t, pod.Kill())
	w.MustDetach("infra")
	if links := w.Links(pod.Namespace); fmt.Sprint(links) != "[lo]" {
		t.Errorf("a namespace that continues has %v", links)
	}
	w.WantNothing("web", before)
}
