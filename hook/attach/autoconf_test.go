package attach_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestSLAAC checks that a workload on a network without addresses configures an address
// and a default route from router advertisements, and that a workload on a network with
// addresses does not, with IPv6 and without.
func TestSLAAC(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	router := w.AddGateway(0, "192.168.50.1/24", "fd77::1/64", "fd60::1/64", "2001:db8:f::9/128")
	share := func(edit func(*network.Definition)) func(*network.Definition) {
		return func(d *network.Definition) {
			d.ShareParent = true
			if edit != nil {
				edit(d)
			}
		}
	}
	w.Define("own", w.Trunk, share(func(d *network.Definition) { d.IPAM = network.IPAMNone }))
	w.Define("four", w.Trunk, share(nil), "192.168.50.0/24")
	w.Define("six", w.Trunk, share(nil), "fd60::/64")
	own, four, six := testenv.NewContainer(t), testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("own", own, "network=own")
	w.MustAttach("four", four, "network=four")
	w.MustAttach("six", six, "network=six")
	prefix := netip.MustParsePrefix("fd77::/64")
	testenv.Eventually(t, "an address from the router's prefix", func() error {
		if err := router.Advertise(prefix); err != nil {
			return err
		}
		if addrs := strings.Join(hooklab.AddrsIn(t, own), " "); !strings.HasPrefix(addrs, "fd77::") {
			return errors.New("it has " + addrs)
		}
		return nil
	})
	testenv.Eventually(t, "the address to be the workload's own", func() error {
		if out, err := own.Exec("ip", "-6", "addr", "show", "tentative"); err != nil || out != "" {
			return errors.New("tentative: " + out)
		}
		return nil
	})
	hooklab.Pings(t, own.Namespace, "fd77::1")
	hooklab.Pings(t, own.Namespace, "2001:db8:f::9") // by the router
	must(t, router.Advertise(prefix))
	for _, c := range []*testenv.Container{four, six} {
		if addrs := strings.Join(hooklab.AddrsIn(t, c), " "); strings.Contains(addrs, "fd77") {
			t.Errorf("%s has %s", c.Name, addrs)
		}
		if routes := strings.Join(hooklab.RoutesIn(t, c, "-6"), "; "); strings.Contains(routes, "proto ra") {
			t.Errorf("%s has routes of the router's: %s", c.Name, routes)
		}
	}
}

// TestDHCP checks that a workload on a network without addresses gets one by DHCP. The
// next container of that name has the same MAC, and so the same address.
func TestDHCP(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	server := w.AddGateway(0, "192.168.50.1/24")
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, lines ...string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), mode))
		return path
	}
	conf := write("udhcpd.conf", 0o600,
		"start 192.168.50.100", "end 192.168.50.110", "interface "+testenv.NIC, "lease_file "+filepath.Join(dir, "leases"),
		"pidfile "+filepath.Join(dir, "pid"), "opt subnet 255.255.255.0", "opt router 192.168.50.1", "opt lease 600")
	write("leases", 0o600)
	script := write("udhcpc.sh", 0o700, "#!/bin/sh", `[ "$1" = bound ] || exit 0`,
		`ip addr add $ip/24 dev $interface && ip route add default via $router`)
	serve := exec.Command("busybox", "udhcpd", "-f", conf)
	var log bytes.Buffer
	serve.Stdout, serve.Stderr = &log, &log
	must(t, server.Start(serve))
	t.Cleanup(func() {
		serve.Process.Kill()
		serve.Wait() // "signal: killed" is no news
		if t.Failed() {
			t.Logf("udhcpd: %s", &log)
		}
	})
	w.Define("own", w.Trunk, func(d *network.Definition) { d.IPAM = network.IPAMNone })
	var first string
	for range 2 {
		c := testenv.NewContainer(t)
		w.MustAttach("c1", c, "network=own")
		if out, err := c.Exec("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-t", "8", "-T", "1", "-s", script); err != nil {
			t.Fatalf("udhcpc: %v: %s", err, out)
		}
		addrs := strings.Join(hooklab.AddrsIn(t, c), " ")
		if first == "" {
			first = addrs
		}
		if !strings.HasPrefix(addrs, "192.168.50.1") || addrs != first {
			t.Errorf("it has %q, and %q before", addrs, first)
		}
		hooklab.Pings(t, c.Namespace, "192.168.50.1")
		w.DetachAndEnd("c1", c)
	}
}
