package etcdstore_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An event is what one host did, with the times of its call and its return, in ns of the monotonic
// clock that all processes of a machine share.
type event struct {
	Kind  string `json:"kind"` // claim, release or session
	Host  int    `json:"host"`
	Owner string `json:"owner,omitempty"`
	Addr  string `json:"addr,omitempty"`
	Call  int64  `json:"call"`
	End   int64  `json:"end"`
	// Pending marks a claim of an address of the host's share, without the store: it does not depend on
	// a session.
	Pending bool `json:"pending,omitempty"`
}

// never is the end of a release of which no answer came.
const never = math.MaxInt64

// step is the input of an operation on one address. The state is its holder, "" for none.
type step struct{ kind, owner, addr string }

// model is an address that at most one owner holds. A claim succeeds only if the address is free or
// its owner's. An end of a session may free it, or may have found it freed.
var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		byAddr := map[string][]porcupine.Operation{}
		for _, o := range history {
			a := o.Input.(step).addr
			byAddr[a] = append(byAddr[a], o)
		}
		for _, p := range byAddr {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() []any { return []any{""} },
	Step: func(state, input, _ any) []any {
		holder, s := state.(string), input.(step)
		switch {
		case s.kind == "claim" && (holder == "" || holder == s.owner):
			return []any{s.owner}
		case s.kind == "release" && holder == s.owner:
			return []any{""}
		case s.kind == "release":
			return []any{holder}
		case s.kind == "expire" && holder == s.owner:
			return []any{holder, ""}
		case s.kind == "expire":
			return []any{holder}
		}
		return nil
	},
}

// lastUse returns the beginning of the last claim of a host that has succeeded before one of its
// sessions was begun: the session before that one had not ended then.
func lastUse(events []event, session event) (last int64) {
	for _, e := range events {
		if e.Kind == "claim" && !e.Pending && e.Host == session.Host && e.End <= session.End {
			last = max(last, e.Call)
		}
	}
	return last
}

// linearizable reports whether at no moment two owners held one address. What a host holds may end
// between the last use of its session and the beginning of the next one.
func linearizable(events []event) porcupine.CheckResult {
	var history []porcupine.Operation
	add := func(e event, kind string, call, end int64) {
		history = append(history, porcupine.Operation{
			ClientId: len(history), Input: step{kind, e.Owner, e.Addr}, Call: call, Return: end,
		})
	}
	released := map[string]int64{} // when the last release of an owner had returned
	for _, e := range events {
		if e.Kind == "release" {
			released[e.Owner] = max(released[e.Owner], e.End)
		}
	}
	for _, s := range events {
		if s.Kind != "session" {
			add(s, s.Kind, s.Call, s.End)
			continue
		}
		from := lastUse(events, s)
		for _, e := range events {
			held := released[e.Owner]
			if held < e.End {
				held = never // a renewal that overlapped the release: until the session ends, or the next renewal
			}
			if e.Kind == "claim" && !e.Pending && e.Host == s.Host && e.Call < s.End && held > from {
				add(e, "expire", from, s.End)
			}
		}
	}
	return porcupine.CheckOperationsTimeout(model.ToModel(), history, 3*time.Minute)
}

// TestCheck checks that the check finds an address that two owners held, and nothing else.
func TestCheck(t *testing.T) {
	claim := func(host int, owner string, call, end int64) event {
		return event{Kind: "claim", Host: host, Owner: owner, Addr: "a", Call: call, End: end}
	}
	release := func(host int, owner string, call, end int64) event {
		return event{Kind: "release", Host: host, Owner: owner, Addr: "a", Call: call, End: end}
	}
	session := func(host int, at int64) event { return event{Kind: "session", Host: host, Call: at, End: at} }
	pending := claim(1, "x", 1, 2)
	pending.Pending = true
	for _, c := range []struct {
		name   string
		events []event
		want   porcupine.CheckResult
	}{
		{"one after the other", []event{claim(1, "x", 1, 2), release(1, "x", 3, 4), claim(2, "y", 5, 6)}, porcupine.Ok},
		{"the release overlaps the claim", []event{claim(1, "x", 1, 2), release(1, "x", 3, 9), claim(2, "y", 5, 6)},
			porcupine.Ok},
		{"held twice", []event{claim(1, "x", 1, 2), claim(2, "y", 5, 6), release(1, "x", 7, 8)}, porcupine.Illegal},
		{"held twice, never released", []event{claim(1, "x", 1, 2), claim(2, "y", 5, 6)}, porcupine.Illegal},
		{"again by the same owner", []event{claim(1, "x", 1, 2), claim(1, "x", 5, 6)}, porcupine.Ok},
		{"after the host's session has ended", []event{
			claim(1, "x", 1, 2), claim(2, "y", 5, 6), session(1, 7), release(1, "x", 8, 9),
		}, porcupine.Ok},
		{"it waited for the session", []event{
			session(1, 2), claim(1, "x", 1, 3), release(1, "x", 4, 5), claim(2, "y", 6, 7),
		}, porcupine.Ok},
		{"a pending address does not end with a session", []event{
			pending, claim(2, "y", 5, 6), session(1, 7), release(1, "x", 8, 9),
		}, porcupine.Illegal},
		{"claimed again after the release", []event{
			claim(1, "x", 1, 2), release(1, "x", 3, 4), claim(1, "x", 5, 6), claim(2, "y", 7, 8),
			session(1, 60),
		}, porcupine.Ok},
		{"before the session was begun", []event{
			session(1, 2), claim(1, "x", 3, 4), claim(2, "y", 5, 6), release(1, "x", 7, 8),
		}, porcupine.Illegal},
		{"the session of another host has ended", []event{
			claim(1, "x", 1, 2), claim(2, "y", 5, 6), session(2, 3), release(1, "x", 8, 9),
		}, porcupine.Illegal},
		{"the session was used later", []event{
			claim(1, "x", 1, 2), claim(2, "y", 5, 6), release(1, "x", 8, 9),
			{Kind: "claim", Host: 1, Owner: "z", Addr: "b", Call: 10, End: 11},
			session(1, 20),
		}, porcupine.Illegal},
		{"the host was paused before the answer", []event{
			claim(1, "x", 1, 9), claim(2, "y", 5, 6), release(1, "x", 10, 11), release(2, "y", 12, 13),
			session(1, 20),
		}, porcupine.Ok},
		{"claimed again after the release", []event{
			claim(1, "x", 1, 2), release(1, "x", 3, 4), claim(1, "x", 5, 6), claim(2, "y", 7, 8),
			session(1, 60),
		}, porcupine.Ok},
		{"before the session was begun", []event{
			session(1, 2), claim(1, "x", 3, 4), claim(2, "y", 5, 6), release(1, "x", 7, 8),
		}, porcupine.Illegal},
		{"the session of another host has ended", []event{
			claim(1, "x", 1, 2), claim(2, "y", 5, 6), session(2, 3), release(1, "x", 8, 9),
		}, porcupine.Illegal},
	} {
		if got := linearizable(slices.Clone(c.events)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
