package link

import (
	"os"
	"testing"
)

func TestSysctl(t *testing.T) {
	n := mustNetns(t, mustHost(t))
	must(t, n.Do(func() error { return writeSysctl("ipv4/conf/lo/arp_ignore", "2") }))
	if got := readSysctl(t, n, "ipv4/conf/lo/arp_ignore"); got != "2" {
		t.Errorf("after: %q", got)
	}
	if own, err := os.ReadFile("/proc/sys/net/ipv4/conf/lo/arp_ignore"); err != nil || string(own) == "2\n" {
		t.Errorf("written outside of the namespace: %q, %v", own, err)
	}
	for _, key := range []string{"../kernel/hostname", "/etc/passwd", "ipv4/../../kernel/hostname"} {
		if err := writeSysctl(key, "x"); err == nil {
			t.Errorf("%s: no error", key)
		}
	}
	if err := writeSysctl("ipv4/conf/lo/nothing", "1"); err != nil {
		t.Errorf("a missing key: %v", err)
	}
}
