package link

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestAcceptRouters checks what an interface takes of advertisements, whatever its namespace's defaults.
func TestAcceptRouters(t *testing.T) {
	n := mustNetns(t, mustHost(t))
	must(t, n.Do(func() error {
		for _, key := range []string{"accept_ra_rt_info_max_plen", "accept_ra_mtu"} {
			if err := writeSysctl("ipv6/conf/default/"+key, "64"); err != nil {
				return err
			}
		}
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"})
	}))
	for metric, want := range map[int]string{0: "0", RouterMetric: "1", 1: "1"} {
		must(t, n.Do(func() error {
			if err := AcceptRouters("eth0", metric, true, nil); err != nil {
				return err
			}
			if takes, err := TakesRouters("eth0"); err != nil || takes != (metric != 0) {
				t.Errorf("metric %d: takes the default route: %v, %v", metric, takes, err)
			}
			return nil
		}))
		for key, want := range map[string]string{
			"accept_ra": "2", "accept_ra_defrtr": want, "accept_ra_mtu": "0", "accept_ra_rt_info_max_plen": "0",
		} {
			if got := readSysctl(t, n, "ipv6/conf/eth0/"+key); got != want {
				t.Errorf("metric %d: %s is %s, want %s", metric, key, got, want)
			}
		}
	}
	must(t, n.Do(func() error { return AcceptRouters("eth0", 0, true, &[16]byte{0xab}) }))
	for key, want := range map[string]string{"addr_gen_mode": "2", "ndisc_notify": "1",
		"stable_secret": "ab00:0000:0000:0000:0000:0000:0000:0000"} {
		if got := readSysctl(t, n, "ipv6/conf/eth0/"+key); got != want {
			t.Errorf("with a secret: %s is %s, want %s", key, got, want)
		}
	}
	// As on a kernel without that sysctl.
	err := n.Do(func() error { return AcceptRouters("eth1", 1, true, nil) })
	if err == nil || !strings.Contains(err.Error(), "Linux 5.12 or later: omit io.lanyard.default-route") {
		t.Errorf("without the sysctl: %v", err)
	}
	if _, err := TakesRouters("../../../../kernel"); err == nil || !strings.Contains(err.Error(), "not below net") {
		t.Errorf("a name that leads elsewhere: %v", err)
	}
}
