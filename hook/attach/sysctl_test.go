package attach_test

import (
	"context"
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
