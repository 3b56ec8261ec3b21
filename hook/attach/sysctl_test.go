package attach_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestSysctls checks that the sysctls that a container requests are those of its interface, whatever
// the interface's name, also after a reattach.
func TestSysctls(t *testing.T) {
	w, _ := hooklab.NewLAN(t, nil)
	raw := testenv.NewContainer(t)
	w.Define("raw", w.Trunk, func(d *network.Definition) {
		d.IPAM, d.Subnets, d.ShareParent = network.IPAMNone, nil, true
	})
	w.MustAttach("raw", raw, "network=raw", "sysctl.net.ipv4.conf.IFNAME.rp_filter=2")
	if out, err := raw.Exec("cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"); err != nil || strings.TrimSpace(out) != "2" {
		t.Errorf("without addresses, rp_filter is %q, %v", out, err)
	}
	for _, name := range []string{"eth0", "lan.0"} {
		c := testenv.NewContainer(t)
		w.MustAttach("c-"+name, c, "network=web", "interface="+name, "sysctl.net.ipv4.conf.IFNAME.rp_filter=2",
			"sysctl.net.ipv4.conf.IFNAME.forwarding=1", "sysctl.net.ipv6.conf.IFNAME.ndisc_notify=1")
		want := func(when string) {
			t.Helper()
			dir := "/proc/sys/net/"
			out, err := c.Exec("cat", dir+"ipv4/conf/"+name+"/rp_filter", dir+"ipv4/conf/"+name+"/forwarding",
				dir+"ipv6/conf/"+name+"/ndisc_notify", dir+"ipv4/conf/lo/forwarding")
			must(t, err)
			if got := strings.Fields(out); strings.Join(got, " ") != "2 1 1 0" {
				t.Errorf("%s, %s: the sysctls are %q", name, when, got)
			}
		}
		want("attached")
		_, err := c.Exec("ip", "link", "del", name)
		must(t, err)
		must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			recs, err := l.Attachments(ctx)
			for _, a := range recs {
				if err == nil && a.Network == "web" && a.Interface == name {
					_, err = l.Reattach(ctx, a.ID)
				}
			}
			return err
		}))
		want("reattached")
		w.Refused("a sysctl that it does not have", w.Attach("j-"+name, c, "network=web", "interface="+name,
			"sysctl.net.ipv4.conf.IFNAME.rp_filter=1"), 1, "rp_filter=1", "was created without it")
	}
}

// TestARPIgnore checks that an interface of a container with several networks answers for its own
// addresses only, unless an annotation or a process in the container has set the sysctl otherwise.
func TestARPIgnore(t *testing.T) {
	const key = "sysctl.net.ipv4.conf.IFNAME.arp_ignore="
	w, _ := hooklab.NewLAN(t, nil)
	for i, name := range []string{"db", "dmz"} {
		w.Define(name, w.Trunk, func(d *network.Definition) { d.ShareParent = true },
			fmt.Sprintf("192.168.%d.0/24", 60+i))
	}
	path := func(name string) string { return "/proc/sys/net/ipv4/conf/" + name + "/arp_ignore" }
	for name, test := range map[string]struct {
		requests []string // of the first network
		want     string   // of eth0, after all are attached
	}{
		"nothing requested": {nil, "1"}, "0 requested": {[]string{key + "0"}, "0"}, "2 requested": {[]string{key + "2"}, "2"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testenv.NewContainer(t)
			want := func(when string, values ...string) {
				t.Helper()
				for i, value := range values {
					out, err := pod.Exec("cat", path(fmt.Sprintf("eth%d", i)))
					if got := strings.TrimSpace(out); err != nil || got != value {
						t.Errorf("%s: arp_ignore of eth%d is %s, %v, want %s", when, i, got, err, value)
					}
				}
			}
			reattach := func(network string) {
				t.Helper()
				must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
					recs, err := l.Attachments(ctx)
					for _, a := range recs {
						if err == nil && a.Network == network {
							_, err = l.Reattach(ctx, a.ID)
						}
					}
					return err
				}))
			}
			alone := "0"
			if test.requests != nil {
				alone = test.want
			}
			w.MustAttach("c1", pod, append(test.requests, "network=web")...)
			want("alone", alone)
			hooklab.IP(t, pod.Namespace, "link del eth0")
			reattach("web")
			want("alone, reattached", alone)
			second := testenv.JoinNamespace(t, pod.Namespace)
			w.MustAttach("c2", second, "network=db")
			want("two", test.want, "1")

			_, err := pod.Exec("sh", "-c", "echo 0 > "+path("eth1"))
			must(t, err)
			third := testenv.JoinNamespace(t, pod.Namespace)
			w.MustAttach("c3", third, "network=dmz")
			want("three", test.want, "0", "1")
			hooklab.IP(t, pod.Namespace, "link del eth2")
			reattach("dmz")
			want("reattached", test.want, "0", "1")
			for id, c := range map[string]*testenv.Container{"c2": second, "c3": third} {
				must(t, c.Kill())
				w.MustDetach(id)
				c.Reap()
			}
			w.DetachAndEnd("c1", pod)
		})
	}
}

// TestSysctlsRefused checks that no request gets other sysctls, whatever door it comes by, and that a
// pod cannot connect the LAN to the cluster's network.
func TestSysctlsRefused(t *testing.T) {
	const forwarding = "net.ipv4.conf.IFNAME.forwarding"
	w, _ := hooklab.NewLAN(t, nil)
	d := w.Definition("web")
	d.KubernetesNamespaces = []string{"*"}
	must(t, d.Save(w.Paths().Networks))
	c := testenv.NewContainer(t)
	for want, r := range map[string]struct {
		pod    hook.Pod
		sysctl hook.Sysctl
	}{
		"cannot be requested": {hook.Pod{}, hook.Sysctl{Key: "net.ipv4.conf.IFNAME.proxy_arp", Value: 1}},
		"cannot be":           {hook.Pod{}, hook.Sysctl{Key: "net.../kernel/core_pattern"}},
		"from 0 to 1":         {hook.Pod{}, hook.Sysctl{Key: forwarding, Value: 2}},
		"is not for pods": {hook.Pod{Namespace: "shop", Name: "p", Sandbox: "s"},
			hook.Sysctl{Key: forwarding, Value: 1}},
	} {
		request := hook.Request{Container: "c1", Pid: c.Pid, Pod: r.pod,
			Wants: []hook.Want{{Network: "web", Sysctls: []hook.Sysctl{r.sysctl}}}}
		err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Attach(ctx, request)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", r, err, want)
		}
	}
	if links := w.Links(c.Namespace); len(links) != 1 {
		t.Errorf("the container has %q", links)
	}
}
