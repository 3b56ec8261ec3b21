package oci

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

func parseNetworks(v string, more ...string) (hook.Request, error) {
	a := map[string]string{"io.lanyard.networks": v}
	for _, m := range more {
		k, v, _ := strings.Cut(m, "=")
		a["io.lanyard."+k] = v
	}
	r, _, err := Parse(&specs.State{ID: "c1", Pid: 7, Annotations: a})
	return r, err
}

func TestSelections(t *testing.T) {
	yes, no := true, false
	for v, want := range map[string][]hook.Want{
		"web50":              {{Network: "web50"}},
		"web50@eth1 db60":    {{Network: "web50", Interface: "eth1"}, {Network: "db60"}},
		"web50@eth1, db60":   {{Network: "web50", Interface: "eth1"}, {Network: "db60"}},
		"web@a,web@b":        {{Network: "web", Interface: "a"}, {Network: "web", Interface: "b"}},
		`[{"name":"web50"}]`: {{Network: "web50"}},
		` [{"name":"w","interface":"eth1","ips":["192.168.50.9","fd50::9"],"mac":"02:00:00:00:00:09",` +
			`"mtu":1400,"default-route":false},{"name":"d","default-route":true}]`: {
			{Network: "w", Interface: "eth1", Addrs: []netip.Addr{netip.MustParseAddr("192.168.50.9"),
				netip.MustParseAddr("fd50::9")}, MAC: ether.MAC{2, 0, 0, 0, 0, 9}, MTU: 1400, Default: &no},
			{Network: "d", Default: &yes},
		},
	} {
		r, err := parseNetworks(v)
		if diff := cmp.Diff(want, r.Wants, cmpopts.EquateComparable(netip.Addr{})); diff != "" || err != nil {
			t.Errorf("%s: %v: %s", v, err, diff)
		}
	}
	if r, err := parseNetworks("a,b", "verify=strict"); err != nil || r.Wants[0].Verify != verify.Strict ||
		r.Wants[1].Verify != verify.Strict {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestSelectionsRefused(t *testing.T) {
	for v, want := range map[string]string{
		"":                                  "network name",
		"web,":                              "network name",
		"web@":                              `"web@" names no interface`,
		"../x":                              "network name",
		"web@a/b":                           "cannot be a link's name",
		"web,web":                           `network "web" is listed twice`,
		"web@e,db@e":                        `interface "e" is requested on network "web" and on network "db"`,
		strings.Repeat("a,", 17) + "b":      "more than 8 networks",
		"[":                                 "is not a JSON array",
		"[]":                                "there are 0 networks",
		"[]x":                               "text follows the JSON array",
		"[1]":                               "[0]: is not a JSON object",
		"[null]":                            "[0]: is not a JSON object",
		`[{"nmae":"web"}]`:                  `[0]: "nmae" is unknown: did you mean "name"?`,
		`[{"Name":"web"}]`:                  `"Name" is unknown`,
		`[{"name":"web","ips":"10.0.0.1"}]`: "ips: cannot be a JSON string",
		`[{"name":"web","ips":["10.0.0"]}]`: `ips: "10.0.0" is not an address`,
		`[{"name":"web","ips":["10.0.0.1","10.0.0.2"]}]`: "two addresses have the same family",
		`[{"name":"web","ips":["0.0.0.0"]}]`:             `ips: "0.0.0.0" is not an address`,
		`[{"name":"web","mac":""}]`:                      "not a unicast MAC",
		`[{"name":"web","mtu":1}]`:                       "not an MTU",
		`[{"name":"a","default-route":true},{"name":"b","default-route":true}]`: `network "a" and network "b" ` +
			`both request the default route`,
	} {
		_, err := parseNetworks(v)
		if err == nil || !strings.Contains(err.Error(), want) ||
			!strings.HasPrefix(err.Error(), `annotation "io.lanyard.networks": `) ||
			strings.Contains(err.Error(), "\n") ||
			len(err.Error()) > 500 {
			t.Errorf("%.60q: got %v, want one line with %q", v, err, want)
		}
	}
	if _, err := parseNetworks("web", "ip=10.0.0.1"); err == nil ||
		!strings.Contains(err.Error(), `"io.lanyard.networks" and "io.lanyard.ip" contradict each other`) {
		t.Errorf("%v", err)
	}
}

func FuzzSelections(f *testing.F) {
	f.Add("web50@eth1,db60@eth2")
	f.Add(
		`[{"name":"web50","interface":"eth1","ips":["192.168.50.9"],"mac":"02:00:00:00:00:09","default-route":false}]`,
	)
	f.Add(`[{"name":null}]`)
	f.Fuzz(func(t *testing.T, v string) {
		wants, err := decodeSelections(v, "")
		if err != nil {
			return
		}
		if len(wants) == 0 || len(wants) > hook.MaxWants || hook.Compatible(wants) != nil {
			t.Errorf("accepted %q as %+v", v, wants)
		}
		for _, w := range wants {
			if checkNames(&w) != nil || len(w.Addrs) > 2 {
				t.Errorf("accepted %q as %+v", v, wants)
			}
			if _, err := json.Marshal(w); err != nil {
				t.Error(err)
			}
		}
	})
}
