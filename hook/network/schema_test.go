package network

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lanyard-net/lanyard/hook/network/schema"
)

func mustSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.Network))
	if err != nil {
		tb.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("network.schema.json", doc); err != nil {
		tb.Fatal(err)
	}
	s, err := c.Compile("network.schema.json")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// validate returns the schema's error for a JSON text, or nil.
func validate(s *jsonschema.Schema, text []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// The schema has exactly the fields of the structs.
func TestSchemaFields(t *testing.T) {
	defs := schemaDefs(t)
	for name, of := range map[string]any{"definition": Definition{}, "subnet": Subnet{}, "route": Route{}} {
		_, fields := fieldsOf(reflect.ValueOf(of))
		slices.Sort(fields)
		if known := slices.Sorted(maps.Keys(defs[name].Properties)); !slices.Equal(known, fields) {
			t.Errorf("%s: the schema has %q\nthe code has %q", name, known, fields)
		}
		for field, p := range defs[name].Properties {
			if p.Description == "" && p.Ref == "" {
				t.Errorf("%s: %s has no description", name, field)
			}
		}
	}
}

type schemaDef struct {
	Properties map[string]struct {
		Enum        []string
		Description string
		Ref         string `json:"$ref"`
	}
}

func schemaDefs(t *testing.T) map[string]schemaDef {
	t.Helper()
	var s struct {
		Defs map[string]schemaDef `json:"$defs"`
	}
	if err := json.Unmarshal(schema.Network, &s); err != nil {
		t.Fatal(err)
	}
	return s.Defs
}

// The schema's enums have the values that the code accepts.
func TestSchemaWords(t *testing.T) {
	code := map[string][]string{
		"driver": Drivers(), "mode": Modes(), "flag": drivers[1].flags,
		"vlan-proto": vlanProtos,
		"allocate":   allocateValues, "mac-from": macFromValues, "ipam": ipamValues, "verify": verifyValues,
		"guard":     switchValues,
		"leases":    leaseStoreValues,
		"on-outage": onOutageValues,
		"ipv6-mode": ipv6Modes,
		"brokered":  brokeredValues,

		"ipv6-addresses": ipv6Forms,
	}
	for field, p := range schemaDefs(t)["definition"].Properties {
		if !slices.Equal(p.Enum, code[field]) {
			t.Errorf("%s: the schema has %q, the code has %q", field, p.Enum, code[field])
		}
	}
}

// The schema accepts what the code accepts.
func TestSchemaAccepts(t *testing.T) {
	s := mustSchema(t)
	ipvlan := fullDefinition()
	ipvlan.Driver, ipvlan.Mode, ipvlan.Flag = DriverIPvlan, ModeL2, ModeBridge
	none := fullDefinition()
	none.IPAM, none.Subnets, none.Routes, none.SourceRouting, none.HostAccess, none.HostAddresses = IPAMNone, nil, nil,
		false, false, nil
	open := fullDefinition()
	open.Subnets[1].Gateway, open.Guard, open.KubernetesNamespaces = netip.MustParseAddr("fd50::ffff:1"), On, []string{"*"}
	open.ShareParent = false
	open.Leases, open.OnOutage, open.HostSlice = LeasesEtcd, OnOutageSlice, HostSlice{2, 8}
	for _, d := range []*Definition{fullDefinition(), ipvlan, none, open} {
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := encode(&text, d); err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{text.String(), "[" + text.String() + "]",
			"[" + text.String() + "," + text.String() + "]"} {
			if err := validate(s, []byte(form)); err != nil {
				t.Errorf("%v in\n%s", err, form)
			}
		}
	}
	for _, text := range []string{
		`{"name": "web", "subnets": [{"subnet": "192.168.50.0/24"}]}`, `{"ipam": "none"}`,
		`{"driver": "ipvlan", "ipam": "none"}`, `{}`,
	} {
		if err := validate(s, []byte(text)); err != nil {
			t.Errorf("%v in %s", err, text)
		}
	}
}

// The schema and the code reject the same errors in single fields.
func TestSchemaRefuses(t *testing.T) {
	s := mustSchema(t)
	for _, text := range []string{
		`[]`, `null`, `"web"`, `[null]`, `{"parnet": "eth0"}`, `{"Parent": "eth0"}`, `{"subnets": [null]}`,
		`{"subnets": {}}`, `{"subnets": [{}]}`,
		`{"name": "../x"}`, `{"id": "0123456789ABCDEF"}`, `{"driver": "bridge"}`,
		`{"parent": "` + strings.Repeat("x", 128) + `"}`,
		`{"mode": "brigde"}`, `{"mode": "l2"}`, `{"driver": "ipvlan", "mode": "bridge"}`, `{"flag": "vepa"}`,
		`{"driver": "ipvlan", "flag": "passthru"}`,
		`{"vlan-proto": "802.1Q"}`, `{"ipam": "dchp"}`, `{"allocate": "stabel"}`, `{"mac-from": "hosts"}`,
		`{"verify": "strickt"}`,
		`{"leases": "etcd", "on-outage": "slcie"}`, `{"leases": "etcd", "on-outage": "slice", "host-slice": "2"}`,
		`{"brokered": "gaurded"}`, `{"guard": "yes"}`,
		`{"mtu": "big"}`, `{"mtu": 1.5}`, `{"mtu": -1}`, `{"mtu": 65536}`, `{"max-per-user": -1}`, `{"deadline": "soon"}`,
		`{"deadline": 1500}`, `{"deadline": "-1s"}`,
		`{"subnets": [{"subnet": "192.168.50.0"}]}`, `{"subnets": [{"subnet": "192.168.50.0/24", "gatway": "192.168.50.1"}]}`,
		`{"subnets": [{"subnet": "192.168.50.0/24", "gateway": "192.168.50.256"}]}`,
		`{"subnets": [{"subnet": "192.168.50.0/24", "aux-address": {"nas": "x"}}]}`,
		`{"routes": [{"dst": "10.0.0.0/8"}]}`, `{"host-address": ["192.168.50.5"]}`, `{"host-access": "yes"}`,
		`{"dns": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}`,
		`{"dns": ["fe80::1%eth0"]}`, `{"allow-user": ["-x"]}`, `{"allow-user": [""]}`, `{"kubernetes-namespaces": ["Shop"]}`,
		`{"labels": {"a": 1}}`, `{"labels": {"": "a"}}`,
		`{"subnets": [{"subnet": "192.168.50.0/24", "aux-address": {"": "192.168.50.9"}}]}`, `{"created": "yesterday"}`,
	} {
		if validate(s, []byte(text)) == nil {
			t.Errorf("the schema accepts %s", text)
		}
		if all, err := DecodeAll([]byte(text)); err == nil && len(all) > 0 && complete(all[0]).Validate() == nil {
			t.Errorf("the code accepts %s", text)
		}
	}
}

// complete returns a copy of d with the required fields set.
func complete(d *Definition) *Definition {
	c := *d
	for into, value := range map[*string]string{&c.Name: "web", &c.ID: "0123456789abcdef", &c.Driver: DriverMacvlan,
		&c.Parent: "eth0"} {
		if *into == "" {
			*into = value
		}
	}
	if c.Mode == "" {
		c.Mode = ModeBridge
		if c.Driver == DriverIPvlan {
			c.Mode = ModeL2
		}
	}
	if len(c.Subnets) == 0 && c.IPAM == "" {
		c.Subnets = []Subnet{{Subnet: netip.MustParsePrefix("192.168.50.0/24")}}
	}
	return &c
}

// The example file is valid, and the schema names its draft.
func TestSchemaExample(t *testing.T) {
	if err := validate(mustSchema(t), []byte(mustRead(t, "testdata/web50.json"))); err != nil {
		t.Error(err)
	}
	if !strings.Contains(string(schema.Network), `"https://json-schema.org/draft/2020-12/schema"`) {
		t.Error("the schema does not name its draft")
	}
}
