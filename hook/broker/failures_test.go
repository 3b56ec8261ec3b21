package broker

import (
	"encoding/json"
	"strings"
	"testing"
)

// Whatever callers leave behind is bounded, and fits into one answer.
func TestFailures(t *testing.T) {
	var f failures
	f.add(7, 7, "c", "a guest's")
	worst := strings.Repeat("\"\x00\u2028<", 400)
	const first = 1000
	for uid := range uint32(3 * maxUsers) {
		for i := range 3 * maxFailures {
			f.add(first+uid, sharedBudgetUID, worst, worst[i:])
		}
	}
	if len(f.byUID) != maxUsers+1 || len(f.order.unauthorized) != maxUsers {
		t.Errorf("%d users are remembered, in an order of %d", len(f.byUID), len(f.order.unauthorized))
	}
	if len(f.forUID(7)) != 1 {
		t.Error("strangers made a guest be forgotten")
	}
	last := f.forUID(first + 3*maxUsers - 1)
	if len(last) != maxFailures {
		t.Errorf("%d failures of one user are remembered", len(last))
	}
	b, err := json.Marshal(reply{Version: version, Failures: last})
	if err != nil || len(b) > maxMessage {
		t.Errorf("they make a message of %d bytes, %v", len(b), err)
	}
	if f.forUID(first) != nil {
		t.Error("the first user is still remembered")
	}
	f.add(1, 1, "c", "the same")
	f.add(1, 1, "c", "the same")
	if got := f.forUID(1); len(got) != 1 {
		t.Errorf("the same failure twice is %+v", got)
	}
}

// FuzzDecode: whatever comes, decode answers in one line or with a request that
// is the same when it is written and read again.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"verb":"attach","container":"c1","pid":7,"wants":[{"network":"web","addresses":["192.168.50.9","fd50::9"],"mac":"02:00:00:00:00:01","mtu":1400,"verify":"strict"}]}`,
		`{"version":1,"verb":"why"}`, `{"version":1,"verb":"tell","error":"x"}`, `{"version":2}`, `[`, ``, `{"version":1,"verb":"why"}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 4*maxText {
				t.Errorf("not one short line: %q", err)
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
