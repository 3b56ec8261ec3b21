package service

import (
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// TestHookRequest checks that the service reads what lanyard-hook writes.
func TestHookRequest(t *testing.T) {
	const state = `{"id":"c1","pid":7}`
	for _, trace := range []bool{false, true} {
		m, err := decode(wire.HookRequest("createRuntime", 10*time.Second, trace, []byte(state)))
		if err != nil {
			t.Fatal(err)
		}
		if m.Verb != wire.VerbHook || m.Stage != "createRuntime" || m.Timeout != 10*time.Second || m.Trace != trace ||
			string(m.State) != state {
			t.Errorf("decoded %+v", m)
		}
	}
}

// TestPluginRequest checks that the service reads what a plugin writes, whatever the path.
func TestPluginRequest(t *testing.T) {
	const input = `{"a":"b"}`
	for _, path := range []string{"", "/run/netns/c1", "a \"path\"\\with\nall of ü"} {
		m, err := decode(wire.PluginRequest(wire.VerbCNI, "ADD", path, 7, time.Second, []byte(input)))
		if err != nil {
			t.Fatal(err)
		}
		if m.Verb != wire.VerbCNI || m.Command != "ADD" || m.Netns != path || path != "" && m.Inode != 7 ||
			m.Timeout != time.Second || string(m.Input) != input {
			t.Errorf("decoded %+v", m)
		}
	}
}
