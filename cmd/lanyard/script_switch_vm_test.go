//go:build vm

package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lanyard-net/lanyard/testenv"
)

// switchCmds are commands for the world outside of the host, for scripts with real
// containers:
//
//	nested OUTER.INNER PREFIX…      adds a station that sends two 802.1Q tags
//	nested-ad OUTER.INNER PREFIX…   the same, with an outer 802.1ad tag
//	router PREFIX@VLAN…             adds a router on one port of the switch with these VLANs
//	forwarding on|off               turns forwarding of the router on or off
//	hairpin on|off                  turns hairpin mode of the trunk's switch port on or off
//	autoconf VLAN PREFIX LEASE IP6  adds a router that leases one address by DHCP and
//	                                advertises the prefix IP6
//	pod NAME                        creates a namespace with the default route of a cluster,
//	                                pinned as CRI-O's are
var switchCmds = map[string]scriptCmd{
	"nested": cmdNested, "nested-ad": cmdNestedAD, "router": cmdRouter, "forwarding": cmdForwarding, "hairpin": cmdHairpin,
	"autoconf": cmdAutoconf, "pod": cmdPod,
}

// vids parses OUTER.INNER.
func vids(ts *testscript.TestScript, word string) (outer, inner uint16) {
	_, err := fmt.Sscanf(word, "%d.%d", &outer, &inner)
	ts.Check(err)
	return outer, inner
}

func addAddrs(s *testenv.Station, prefixes []string) {
	for _, p := range prefixes {
		s.AddAddr(p)
	}
}

func cmdNested(ts *testscript.TestScript, neg bool, args []string) {
	outer, inner := vids(ts, args[0])
	s := stateOf(ts).lab.AddGateway(outer)
	s.Nest(inner)
	addAddrs(s, args[1:])
}

// The switch does not know 802.1ad tags: to it these frames are untagged.
func cmdNestedAD(ts *testscript.TestScript, neg bool, args []string) {
	outer, inner := vids(ts, args[0])
	s := stateOf(ts).lab.AddGateway(0)
	s.NestAD(outer, inner)
	addAddrs(s, args[1:])
}

// cmdRouter adds a router on a stick: a packet between VLANs enters and leaves by one port.
func cmdRouter(ts *testscript.TestScript, neg bool, args []string) {
	w := stateOf(ts)
	var r *testenv.Station
	made := map[string]bool{}
	for _, a := range args {
		prefix, vlan, _ := strings.Cut(a, "@")
		vid, err := strconv.ParseUint(vlan, 10, 12)
		ts.Check(err)
		if r == nil {
			r = w.lab.AddGateway(uint16(vid))
		}
		card := "eth0." + vlan
		if !made[vlan] {
			made[vlan] = true
			_, err := w.lab.Switch.Exec("bridge", "vlan", "add", "dev", r.Port, "vid", vlan)
			ts.Check(err)
			ip(ts, r.Namespace, "link add link eth0 name "+card+" type vlan id "+vlan)
			ip(ts, r.Namespace, "link set "+card+" up")
			// There is no shorter path between the VLANs that a redirect could name.
			ts.Check(r.Sysctl("net/ipv4/conf/"+card+"/send_redirects", "0"))
		}
		r.Card = card
		r.AddAddr(prefix)
	}
	ts.Check(r.Sysctl("net/ipv4/conf/all/send_redirects", "0"))
	w.namespaces["router"] = r.Namespace
}

func cmdForwarding(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		ts.Check(stateOf(ts).namespaces["router"].Sysctl(name, map[string]string{"on": "1", "off": "0"}[args[0]]))
	}
}

func cmdHairpin(ts *testscript.TestScript, neg bool, args []string) {
	_, err := stateOf(ts).lab.Switch.Exec("bridge", "link", "set", "dev", "trunk", "hairpin", args[0])
	ts.Check(err)
}

func cmdAutoconf(ts *testscript.TestScript, neg bool, args []string) {
	vid, err := strconv.ParseUint(args[0], 10, 12)
	ts.Check(err)
	s := stateOf(ts).lab.AddGateway(uint16(vid), args[1])
	conf, prefix6 := ts.MkAbs("udhcpd.conf"), netip.MustParsePrefix(args[3])
	ts.Check(os.WriteFile(ts.MkAbs("leases"), nil, 0o600))
	ts.Check(os.WriteFile(conf, fmt.Appendf(nil,
		"interface %s\nstart %s\nend %[2]s\nlease_file %s\npidfile %s\nopt subnet 255.255.255.0\n",
		s.Card, args[2], ts.MkAbs("leases"), ts.MkAbs("pid")), 0o600))
	serve := exec.Command("busybox", "udhcpd", "-f", conf)
	ts.Check(s.Start(serve))
	ticker, end := time.NewTicker(500*time.Millisecond), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-ticker.C:
				_ = s.Advertise(prefix6) // if it fails, the script misses the advertisement
			case <-end:
				return
			}
		}
	})
	ts.Defer(func() {
		ticker.Stop()
		close(end)
		done.Wait()
		serve.Process.Kill()
		serve.Wait() // "signal: killed" is expected
	})
}

func cmdPod(ts *testscript.TestScript, neg bool, args []string) {
	w := stateOf(ts)
	pod := testenv.NewNamespace(w.tb, "pod "+args[0])
	pod.Pin(w.tb)
	for _, line := range []string{
		"link add cluster type veth peer name node", "link set cluster up", "link set node up",
		"route add default dev cluster",
	} {
		ip(ts, pod, line)
	}
	w.namespaces["pod "+args[0]] = pod
}

// ip runs ip(8) in a namespace, with the arguments in one line.
func ip(ts *testscript.TestScript, n *testenv.Namespace, line string) {
	_, err := n.Exec("ip", strings.Fields(line)...)
	ts.Check(err)
}
