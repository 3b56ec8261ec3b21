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
