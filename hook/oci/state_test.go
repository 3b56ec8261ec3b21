package oci

import (
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestReadState(t *testing.T) {
	// The states that runc 1.1 and crun 1.8 write.
	for name, state := range map[string]string{
		"runc": `{"ociVersion":"1.0.2-dev","id":"web","status":"creating","pid":42,"bundle":"/b",` +
			`"annotations":{"io.lanyard.network":"web50"}}`,
		"crun": `{"ociVersion":"1.0","id":"web","status":"created","pid":42,"root":"/b/rootfs","bundle":"/b",` +
			`"annotations":{"io.lanyard.network":"web50"}}`,
	} {
		s, err := ReadState(strings.NewReader(state))
		if err != nil || s.ID != "web" || s.Pid != 42 || s.Annotations["io.lanyard.network"] != "web50" {
			t.Errorf("%s: got %+v, %v", name, s, err)
		}
	}
}

func TestReadStateRefusals(t *testing.T) {
	for name, c := range map[string]struct{ state, want string }{
		"empty":     {"", "not an OCI state"},
		"not JSON":  {"hello", "not an OCI state"},
		"array":     {"[]", "not an OCI state"},
		"no id":     {`{"pid":1}`, "no container id"},
		"too large": {`{"id":"` + strings.Repeat("x", MaxState) + `"}`, "over 1048576 bytes"},
	} {
		r := strings.NewReader(c.state)
		_, err := ReadState(r)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", name, err, c.want)
		}
		if r.Len() != 0 {
			t.Errorf("%s: %d bytes were left unread: the runtime would die of SIGPIPE", name, r.Len())
		}
	}
}

func TestParse(t *testing.T) {
	r, ok, err := Parse(&specs.State{ID: "c1", Pid: 7, Annotations: map[string]string{
		"io.lanyard.network": "web50", "io.lanyard.ip": "192.168.50.9", "io.lanyard.ip6": "fd50::9",
		"io.lanyard.mac": "02:00:00:00:00:09", "io.lanyard.interface": "lan0", "io.lanyard.mtu": "1400",
		"io.lanyard.verify": "strict", "io.lanyard.default-route": "true",
		"io.kubernetes.cri-o.SandboxID": "sb", "io.kubernetes.pod.namespace": "prod",
		"io.kubernetes.cri-o.ContainerName": "app",
		"io.lanyrd.network":                 "not ours to judge",
	}})
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	w := r.Wants[0]
	if r.Name != "app" || r.Pod.Sandbox != "sb" || r.Pod.Namespace != "prod" || w.Network != "web50" ||
		len(w.Addrs) != 2 || w.MAC.String() != "02:00:00:00:00:09" || w.Interface != "lan0" || w.MTU != 1400 ||
		w.Verify != "strict" ||
		w.Default == nil || !*w.Default {
		t.Errorf("got %+v", r)
	}
}

func TestParseLeavesOthersAlone(t *testing.T) {
	state := &specs.State{ID: "c1", Annotations: map[string]string{"io.lanyrd.network": "x", "a": "b"}}
	if _, ok, err := Parse(state); ok || err != nil {
		t.Errorf("got ours=%v, %v", ok, err)
	}
}

func TestParseRefusals(t *testing.T) {
	for _, c := range []struct {
		annotations map[string]string
		pid         int
		want        string
	}{
		{map[string]string{"io.lanyard.netwrk": "web50"}, 1,
			`"io.lanyard.netwrk" is unknown: did you mean "io.lanyard.network"?`},
		{map[string]string{"io.lanyard.ip": "192.168.50.9"}, 1, `"io.lanyard.network" is missing`},
		{map[string]string{"io.lanyard.network": "../etc/passwd"}, 1, `"io.lanyard.network"`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.ip": "fd00::1"}, 1, `"fd00::1" is not an IPv4 address`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.ip": "192.168.50.256"}, 1, `is not an IPv4 address`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.ip6": "fe80::1%eth0"}, 1, `is not an IPv6 address`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.ip6": "::ffff:1.2.3.4"}, 1, `is not an IPv6 address`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.mac": "01:00:5e:00:00:01"}, 1, `is not a unicast MAC`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.mac": "00:00:00:00:00:00"}, 1, `is not a unicast MAC`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.ip": "0.0.0.0"}, 1, `is not an IPv4 address`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.ip6": "::"}, 1, `is not an IPv6 address`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.ip6": "ff02::1"}, 1, `is not an IPv6 address`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.mac": "02:00:00:00:00"}, 1, `MAC address "02:00:00:00:00"`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.interface": "sixteen-bytes-xx"}, 1, `15`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.interface": "a/b"}, 1, `"io.lanyard.interface"`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.mtu": "9k"}, 1, `"9k" is not an MTU`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.default-route": "yes"}, 1,
			`"yes" is neither true nor false`},
		{map[string]string{"\"io.lanyard.networks": `[{""name"":""n""}]"`}, 1,
			`"\"io.lanyard.networks": the key begins with a quote: podman 5.0`},
		{map[string]string{" io.lanyard.network": "n"}, 1, `" io.lanyard.network": the prefix is misspelt`},
		{map[string]string{"IO.Lanyard.network": "n"}, 1, `"IO.Lanyard.network": the prefix is misspelt`},
		{map[string]string{"io.lanyard/network": "n"}, 1, `"io.lanyard/network": the prefix is misspelt`},
		{map[string]string{"io.lanyard.network": "n", "'io.lanyard.ip": "10.0.0.1"}, 1,
			`"'io.lanyard.ip": the prefix is misspelt`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.verify": "very"}, 1, `use off, warn or strict`},
		{map[string]string{"io.lanyard.network": "n"}, 0, `has no pid`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.sysctl.net.ipv4.conf.eth0.rp_filter": "1"}, 1,
			`did you mean "io.lanyard.sysctl.net.ipv4.conf.IFNAME.rp_filter"?`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.sysctl.net.ipv4.conf.IFNAME.proxy_arp": "1"}, 1,
			`"io.lanyard.sysctl.net.ipv4.conf.IFNAME.proxy_arp": cannot be requested`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.sysctl.kernel.core_pattern": "|/x"}, 1,
			`cannot be requested: lanyard-annotations(7) lists`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.sysctl.net.ipv4.conf.IFNAME.rp_filter": "3"}, 1,
			`3 is not a number from 0 to 2`},
		{map[string]string{"io.lanyard.network": "n", "io.lanyard.sysctl.net.ipv4.conf.IFNAME.rp_filter": "1\n"}, 1,
			`"1\n" is not a number`},
		{map[string]string{"io.lanyard.networks": "n", "io.lanyard.sysctl.net.ipv4.conf.IFNAME.rp_filter": "1"}, 1,
			`contradict each other`},
	} {
		_, ok, err := Parse(&specs.State{ID: "c1", Pid: c.pid, Annotations: c.annotations})
		if !ok || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want one line with %q", c.annotations, err, c.want)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add(
		`{"id":"web","status":"creating","pid":42,` +
			`"annotations":{"io.lanyard.network":"web50","io.lanyard.ip":"192.168.50.9"}}`,
	)
	f.Add(`{"id":"web","status":"created","pid":42,"root":"/x","annotations":{"io.lanyard.mac":"02:00:00:00:00:01"}}`)
	f.Add(`{"id":"web","pid":42,"annotations":{" IO.Lanyard.network":"web50"}}`)
	f.Add(`{"id":1}`)
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ReadState(io.MultiReader(strings.NewReader(in)))
		if err != nil {
			return
		}
		r, ok, err := Parse(s)
		if err == nil && ok && (len(r.Wants) != 1 || r.Wants[0].Network == "" || r.Pid <= 0) {
			t.Errorf("accepted %q as %+v", in, r)
		}
		if ok != Ours(s) {
			t.Errorf("Parse and Ours disagree on %q", in)
		}
	})
}
