package etcdstore_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/ipam/etcdstore/schema"
)

func mustSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.Leases))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("leases.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("leases.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// load writes a configuration with a mode and loads it.
func load(t *testing.T, text string, mode os.FileMode) (etcdstore.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "leases.json")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return etcdstore.Load(path)
}

// TestSchemaFields checks that the schema has exactly the fields of the code, each with a description.
func TestSchemaFields(t *testing.T) {
	var s struct {
		Properties map[string]struct{ Description string }
	}
	if err := json.Unmarshal(schema.Leases, &s); err != nil {
		t.Fatal(err)
	}
	var fields []string
	of := reflect.TypeFor[etcdstore.Config]()
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		fields = append(fields, name)
	}
	slices.Sort(fields)
	if got := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(got, fields) {
		t.Errorf("the schema has %q, the code has %q", got, fields)
	}
	for name, p := range s.Properties {
		if p.Description == "" {
			t.Errorf("%s has no description", name)
		}
	}
}

// TestConfig checks what a configuration is refused for, in one line that names the file, and that
// the schema accepts no more than the code, but for rules between fields.
func TestConfig(t *testing.T) {
	s := mustSchema(t)
	for _, c := range []struct {
		text, word string
		inSchema   bool // the schema finds it, too
	}{
		{`{"endpoints": ["https://10.0.0.1:2379"]}`, "", false},
		{`{"endpoints": ["unix:///run/etcd:0"], "prefix": "/", "ttl": "90s"}`, "", false},
		{`{"endpoints": ["https://a:1", "https://b:1"], "ca": "/ca", "cert": "/c", "key": "/k", "user": "u",
			"password": "p"}`,
			"", false},
		{`{"endpoints": []}`, "endpoints", true},
		{`{}`, "endpoints", true},
		{`[]`, "leases schema", true},
		{`{"endpoints": ["https://10.0.0.1:2379"]} {}`, "more text", true},
		{`{"endpoints": ["10.0.0.1:2379"]}`, "endpoints[0]", true},
		{`{"endpoints": ["https://10.0.0.1"]}`, "endpoints[0]", true},
		{`{"endpoints": ["ftp://10.0.0.1:1"]}`, "endpoints[0]", true},
		{`{"endpoints": ["https://10.0.0.1:2379", "http://10.0.0.2:2379"]}`, "TLS", false},
		{`{"endpoints": ["http://10.0.0.1:2379"], "ca": "/ca"}`, "does not use TLS", false},
		{`{"endpoints": ["https://10.0.0.1:2379"], "cert": "/c"}`, "cert, key", true},
		{`{"endpoints": ["https://10.0.0.1:2379"], "user": "u"}`, "user, password", true},
		{`{"endpoints": ["https://10.0.0.1:2379"], "prefix": "lanyard"}`, "prefix", true},
		{`{"endpoints": ["https://10.0.0.1:2379"], "ttl": "soon"}`, "ttl", true},
		{`{"endpoints": ["https://10.0.0.1:2379"], "ttl": "1s"}`, "ttl", false},
		{`{"endpoints": ["https://10.0.0.1:2379"], "ttl": "2500ms"}`, "ttl", false},
		{`{"endpoints": ["https://10.0.0.1:2379"], "ttl": "48h"}`, "ttl", false},
		{`{"endpoints": ["https://10.0.0.1:2379"], "timeout": "5s"}`, `"timeout"`, true},
	} {
		_, err := load(t, c.text, 0o600)
		switch {
		case (err == nil) != (c.word == ""):
			t.Errorf("%s: %v", c.text, err)
		case err != nil && (!strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), "leases.json: ") ||
			strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %q, want %q in one line", c.text, err, c.word)
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(c.text))
		if err == nil {
			err = s.Validate(v)
		}
		if (err != nil) != c.inSchema {
			t.Errorf("%s: the schema says %v", c.text, err)
		}
	}
}

// TestConfigFile checks that a file that others can read is refused, and one that does not exist.
func TestConfigFile(t *testing.T) {
	for _, mode := range []os.FileMode{0o640, 0o604, 0o610} {
		if _, err := load(t, `{"endpoints": ["https://10.0.0.1:2379"]}`, mode); err == nil ||
			!strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := etcdstore.Load(filepath.Join(t.TempDir(), "leases.json")); err == nil ||
		!strings.Contains(err.Error(), "does not exist") {
		t.Errorf("no file: %v", err)
	}
}

// TestPlace checks what makes a configuration one of another place.
func TestPlace(t *testing.T) {
	const first, second, third = "http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"
	c := etcdstore.Config{Endpoints: []string{first, second}}
	for name, test := range map[string]struct {
		edit func(*etcdstore.Config)
		same bool
	}{
		"the order of the endpoints": {func(c *etcdstore.Config) { c.Endpoints = []string{second, first} }, true},
		"the default prefix":         {func(c *etcdstore.Config) { c.Prefix = etcdstore.DefaultPrefix }, true},
		"the time to live":           {func(c *etcdstore.Config) { c.TTL = "5m" }, true},
		"another prefix":             {func(c *etcdstore.Config) { c.Prefix = "/other/" }, false},
		"another endpoint":           {func(c *etcdstore.Config) { c.Endpoints = []string{first, third} }, false},
		"an endpoint less":           {func(c *etcdstore.Config) { c.Endpoints = []string{first} }, false},
	} {
		other := c
		test.edit(&other)
		if same := place(t, other) == place(t, c); same != test.same {
			t.Errorf("%s: the place is the same: %v", name, same)
		}
	}
}

// place opens the store of a configuration, which connects to no server, and returns its place.
func place(t *testing.T, c etcdstore.Config) string {
	t.Helper()
	s, err := etcdstore.Open(c, etcdstore.Host{ID: "a", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Place()
}
