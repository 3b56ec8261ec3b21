package main

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

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
		"io.lanyard/network", "io/lanyard.network", "\u212aio.lanyard.x", "\u017fio.lanyard.x",
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
