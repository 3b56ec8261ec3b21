package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// object is a JSON object.
type object = map[string]any

// created returns a network as podman 5.4 writes it to create, with some fields changed.
func created(changes object) object {
	n := object{
		"name": "lan", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9", "driver": "lanyard",
		"created": "2026-11-29T10:00:00Z", "ipv6_enabled": false, "internal": false, "dns_enabled": true,
		"ipam_options": object{"driver": ""}, "options": object{"network": "web"},
	}
	for k, v := range changes {
		n[k] = v
	}
	return n
}

// executed returns the input of setup and teardown, as netavark 1.14 writes it.
func executed(id string, options, network object) object {
	if options["interface_name"] == nil {
		options["interface_name"] = "eth0"
	}
	return object{
		"container_id": id, "container_name": "name-of-" + id, "port_mappings": nil,
		"network": created(network), "network_options": options,
	}
}

func asObject(t *testing.T, text []byte) (o object) {
	t.Helper()
	must(t, json.Unmarshal(text, &o))
	return o
}

// TestCreate checks which networks of podman are made, and how.
func TestCreate(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.define(w.Trunk)
	out, err := w.plugin(created(object{"labels": object{"a": "b"}}), "create")
	must(t, err)
	want := created(object{"labels": object{"a": "b"}, "dns_enabled": false, "ipam_options": object{"driver": "none"}})
	if diff := cmp.Diff(want, asObject(t, out)); diff != "" {
		t.Errorf("the network differs (-want +got):\n%s", diff)
	}
	for word, changes := range map[string]object{
		`"nowhere"`:                         {"options": object{"network": "nowhere"}},
		`"../web"`:                          {"options": object{"network": "../web"}},
		"option network is missing":         {"options": nil},
		`option "parent" is unknown`:        {"options": object{"network": "web", "parent": "eth0.50"}},
		"option mtu":                        {"options": object{"network": "web", "mtu": "big"}},
		"12 is not an MTU":                  {"options": object{"network": "web", "mtu": "12"}},
		"option verify":                     {"options": object{"network": "web", "verify": "hard"}},
		"option default-route":              {"options": object{"network": "web", "default-route": "perhaps"}},
		`--subnet: the Lanyard network "w`:  {"subnets": []any{object{"subnet": "10.0.0.0/24"}}},
		"--interface-name: the Lanyard net": {"network_interface": "eth9"},
		"--internal: the Lanyard network":   {"internal": true},
		"--route: the Lanyard network":      {"routes": []any{object{"destination": "10.0.0.0/8", "gateway": "10.0.0.1"}}},
	} {
		if _, err := w.plugin(created(changes), "create"); err == nil || !strings.Contains(err.Error(), word) ||
			strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "lanyard: ") {
			t.Errorf("%v: %v, want %s", changes, err, word)
		}
	}
	out, err = w.plugin(nil, "info")
	must(t, err)
	if info := asObject(t, out); info["api_version"] != "1.0.0" || info["version"] == "" {
		t.Errorf("info is %v", info)
	}
	if _, err := w.plugin(nil, "setup"); err == nil || !strings.Contains(err.Error(), "podman network create -d lanyard") {
		t.Errorf("setup without a namespace: %v", err)
	}
}

// TestLeasesInEtcd checks that setup on a network with leases in etcd, which the plugin does not
// reach, is refused in one line, and that nothing is left.
func TestLeasesInEtcd(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.defineWith(w.Trunk, network.LeasesEtcd)
	path, _ := testenv.NewNamespace(t, "container").PinAt(t)
	_, err := w.plugin(executed("c1", object{}, nil), "setup", path)
	if err == nil || !strings.Contains(err.Error(), `"systemctl enable --now lanyard.socket"`) ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("setup: %v", err)
	}
	w.StartService()
	in := executed("c1", object{}, nil)
	in["notes"] = strings.Repeat("x", 70<<10)
	if _, err = w.plugin(in, "setup", path); err == nil || strings.Contains(err.Error(), "systemctl") ||
		!strings.Contains(err.Error(), "and takes requests of up to 64 KiB: shorten the request") {
		t.Errorf("a request that is too long for the service: %v", err)
	}
	if recs := w.Records(); len(recs) > 0 {
		t.Errorf("records are left: %+v", recs)
	}
}

// TestSetup checks setup and teardown: the status block says what the namespace has.
func TestSetup(t *testing.T) {
	t.Run("alone", func(t *testing.T) { testSetup(t, newWorld(t, testenv.Config{})) })
	t.Run("service", func(t *testing.T) {
		w := newWorld(t, testenv.Config{})
		service := w.StartService()
		testSetup(t, w)
		if !strings.Contains(service.Logged(), "plugin=netavark command=setup") {
			t.Errorf("the service has carried out no setup: %s", service.Logged())
		}
	})
}

func testSetup(t *testing.T, w *world) {
	w.AddGateway(0, "192.168.50.1/24")
	w.define(w.Trunk)
	n := testenv.NewNamespace(t, "container")
	path, _ := n.PinAt(t)
	// The address twice, as "podman network reload" has it after a restore.
	in := executed("c1", object{"static_ips": []string{"192.168.50.9", "192.168.50.9"}, "static_mac": "02:00:00:00:00:09"},
		nil)
	out, err := w.plugin(in, "setup", path)
	must(t, err)
	want := object{
		"dns_search_domains": []any{"lan.example"}, "dns_server_ips": []any{"192.168.50.1"},
		"interfaces": object{"eth0": object{
			"mac_address": "02:00:00:00:00:09",
			"subnets":     []any{object{"ipnet": "192.168.50.9/24", "gateway": "192.168.50.1"}},
		}},
	}
	if diff := cmp.Diff(want, asObject(t, out)); diff != "" {
		t.Errorf("the status block differs (-want +got):\n%s", diff)
	}
	for _, args := range [][]string{{"addr", "show", "eth0"}, {"route"}} {
		text, err := n.Exec("ip", args...)
		if must(t, err); !strings.Contains(text, "192.168.50.") {
			t.Errorf("ip %q: %s", args, text)
		}
	}
	if _, err := n.Exec("ping", "-n", "-c1", "-W5", "192.168.50.1"); err != nil {
		t.Error(err)
	}
	a := w.Records()[0]
	if a.Verdict.Code != verify.OK || a.Containers[0].ID != "c1:eth0:podman/lan" || a.Containers[0].Name != "name-of-c1" {
		t.Errorf("the record is %+v", a)
	}
	other := testenv.NewNamespace(t, "other")
	otherPath, _ := other.PinAt(t)
	for word, options := range map[string]object{
		"192.168.50.9 is held by":                  {"static_ips": []string{"192.168.50.9"}},
		`"03:00:00:00:00:09" is not a unicast MAC`: {"static_mac": "03:00:00:00:00:09"},
		`"00:00:00:00:00:00" is not a unicast MAC`: {"static_mac": "00:00:00:00:00:00"},
		`"::" is not an address such as`:           {"static_ips": []string{"::"}},
		"in none of its subnets":                   {"static_ips": []string{"10.0.0.9"}},
	} {
		if _, err := w.plugin(executed("c2", options, nil), "setup", otherPath); err == nil ||
			!strings.Contains(err.Error(), word) {
			t.Errorf("%v: %v, want %s", options, err, word)
		}
	}
	for range 2 {
		out, err := w.plugin(in, "teardown", path)
		if must(t, err); len(out) > 0 {
			t.Errorf("teardown printed %s", out)
		}
	}
	if recs := w.Records(); len(recs) > 0 {
		t.Errorf("records are left: %+v", recs)
	}
	if text, err := n.Exec("ip", "link"); err != nil || strings.Contains(text, "eth0") {
		t.Errorf("the interface is left: %s, %v", text, err)
	}
}
