package service

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// The failures that are kept are bounded, and those of one user fit into one reply.
func TestFailures(t *testing.T) {
	var f failures
	f.add(7, 7, "c", "of an authorized user")
	worst := strings.Repeat("\"\x00\u2028<", 400)
	const first = 1000
	for uid := range uint32(3 * maxUsers) {
		for i := range 3 * maxFailures {
			f.add(first+uid, sharedBudgetUID, worst, worst[i:])
		}
	}
	if len(f.byUID) != maxUsers+1 || len(f.order.unauthorized) != maxUsers {
		t.Errorf("%d users are kept, %d of them unauthorized", len(f.byUID), len(f.order.unauthorized))
	}
	if len(f.forUID(7)) != 1 {
		t.Error("unauthorized callers displaced an authorized user's failure")
	}
	last := f.forUID(first + 3*maxUsers - 1)
	if len(last) != maxFailures {
		t.Errorf("%d failures of one user are kept", len(last))
	}
	b, err := json.Marshal(reply{Version: wire.Version, Failures: last})
	if err != nil || len(b) > wire.MaxMessage {
		t.Errorf("the reply has %d bytes, %v", len(b), err)
	}
	if f.forUID(first) != nil {
		t.Error("the first user's failures are still kept")
	}
	f.add(1, 1, "c", "the same")
	f.add(1, 1, "c", "the same")
	if got := f.forUID(1); len(got) != 1 {
		t.Errorf("the same failure added twice: %+v", got)
	}
}

// FuzzDecode checks that decode returns an error of one short line, or a request that
// stays the same when it is encoded and decoded again.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"version":2,"verb":"attach","container":"c1","pid":7,"wants":[{"network":"web","addresses":` +
			`["192.168.50.9","fd50::9"],"mac":"02:00:00:00:00:01","mtu":1400,"verify":"strict"}]}`,
		`{"version":2,"verb":"why"}`, `{"version":2,"verb":"tell","error":"x"}`, `{"version":3}`, `[`, ``,
		`{"version":2,"verb":"why"}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 4*maxText {
				t.Errorf("error is not one short line: %q", err)
			}
			return
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if second, err := json.Marshal(again); err != nil || string(second) != string(text) {
			t.Errorf("%s became %s, %v", text, second, err)
		}
	})
}
