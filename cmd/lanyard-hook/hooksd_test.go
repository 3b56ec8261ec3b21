package main

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/hook/oci"
	"github.com/lanyard-net/lanyard/packaging"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// shippedWhen returns the pattern of keys in the hooks.d files that are installed.
func shippedWhen(tb testing.TB) string {
	tb.Helper()
	var file struct {
		When struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"when"`
	}
	must(tb, json.Unmarshal([]byte(packaging.HookFile("lanyard-hook", "createRuntime")), &file))
	if len(file.When.Annotations) != 1 {
		tb.Fatalf("the file matches %q", file.When.Annotations)
	}
	for pattern := range file.When.Annotations {
		return pattern
	}
	return ""
}

// FuzzHooksD checks that the pattern in the hooks.d files matches exactly the keys that the
// hook handles.
func FuzzHooksD(f *testing.F) {
	pattern := regexp.MustCompile(shippedWhen(f))
	for _, key := range []string{
		"io.lanyard.network", "io.lanyard.", "io.lanyard", "\"io.lanyard.networks", " io.lanyard.network",
		"IO.Lanyard.network", "\u00a0'Io.lanyard.x",
		"io.lanyrd.network", "com.example.io.lanyard.network", "xio.lanyard.network", "io-lanyard.network",
		"ioXlanyard.network", "",
		"io.lanyard/network", "io.lanyard-network", "io.lanyard_network", "io.lanyard:network", "io.lanyard network",
		"io.lanyards.network", "io.lanyard2.network", "io.lanyard\xff", "io.lanyard\u00e9", "io/lanyard.network",
		"\u212aio.lanyard.x", "\u017fio.lanyard.x",
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if ours := oci.Ours(&specs.State{Annotations: map[string]string{key: "x"}}); ours != pattern.MatchString(key) {
			t.Errorf("%q: ours is %v, and the file matches it: %v", key, ours, !ours)
		}
	})
}

// TestNearlyOurs checks that a key with a misspelt prefix is refused by name, in every stage
// before the container runs. poststop has nothing to release.
func TestNearlyOurs(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	c := testenv.NewContainer(t)
	for key, words := range map[string][]string{
		`"io.lanyard.networks`: {`"\"io.lanyard.networks"`, "begins with a quote", "podman 5.0"},
		" io.lanyard.network":  {`" io.lanyard.network"`, "lower case"},
		"IO.Lanyard.network":   {`"IO.Lanyard.network"`, "lower case"},
		"io.lanyard":           {`"io.lanyard"`, `write "io.lanyard."`, `such as "network"`},
		"io.lanyard-network":   {`"io.lanyard-network"`, `write "io.lanyard."`},
		"io.lanyard_network":   {`"io.lanyard_network"`, `write "io.lanyard."`},
		"io.lanyard:network":   {`"io.lanyard:network"`, `write "io.lanyard."`},
		"io.lanyard/network":   {`"io.lanyard/network"`, `write "io.lanyard."`},
	} {
		for _, stage := range []string{"createRuntime", "createContainer"} {
			state := hooklab.EngineState(t, "c1", c.Pid, map[string]string{key: "web"})
			w.Refused(key, w.Run(state, []string{stage}), 1, words...)
		}
		if o := w.Run(hooklab.EngineState(t, "c1", 0, map[string]string{key: "web"}), []string{"poststop"}); o.Status != 0 ||
			o.Stderr != "" {
			t.Errorf("poststop of %s: %+v", key, o)
		}
	}
}

// TestCDISpec checks the CDI specification for Docker: it is valid JSON, its hooks have stages of
// lanyard-hook, and a container with the device and without an annotation is refused, instead of
// being off the LAN without an error.
func TestCDISpec(t *testing.T) {
	var spec struct {
		Kind    string
		Devices []struct {
			Name           string
			ContainerEdits struct {
				Hooks []struct {
					HookName, Path string
					Args, Env      []string
				}
			}
		}
	}
	must(t, json.Unmarshal([]byte(packaging.CDISpec(`/opt/a "b"/lanyard-hook`)), &spec))
	if len(spec.Devices) != 1 || spec.Kind+"="+spec.Devices[0].Name != engines.CDIDevice {
		t.Fatalf("the specification is %+v", spec)
	}
	w := newWorld(t, testenv.Config{})
	c := testenv.NewContainer(t)
	hooks := spec.Devices[0].ContainerEdits.Hooks
	if len(hooks) != 2 {
		t.Fatalf("the hooks are %+v", hooks)
	}
	for i, h := range hooks {
		if h.HookName != []string{"createRuntime", "poststop"}[i] || h.Path != `/opt/a "b"/lanyard-hook` ||
			len(h.Args) != 2 ||
			h.Args[1] != h.HookName {
			t.Errorf("hook %d is %+v", i, h)
		}
		o := w.Run(hooklab.State("c1", c.Pid), h.Args[1:], h.Env...)
		if h.HookName == "createRuntime" {
			w.Refused("no annotation", o, 1, "asks for Lanyard's device", "add --annotation io.lanyard.network=NETWORK")
		} else if o.Status != 0 || o.Stderr != "" {
			t.Errorf("%s without an annotation: %+v", h.HookName, o)
		}
	}
}
