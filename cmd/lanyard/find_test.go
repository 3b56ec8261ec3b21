package main

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
)

// TestFind checks by which words an attachment is found: ids of containers, prefixes of them, and
// what "lanyard ps" prints.
func TestFind(t *testing.T) {
	const long = "9e61cecbbfd93d1dbca7235a1cbf851648b4ab68f3a739dee6a9087b6e15b1db"
	attachment := func(container, network string, pod hook.Pod) hook.Attachment {
		return hook.Attachment{Network: network, Pod: pod, Containers: []hook.Container{{ID: container}}}
	}
	recs := []hook.Attachment{
		attachment(long+":eth0:lan", "web", hook.Pod{}), attachment(long+":eth1:lan", "db", hook.Pod{}),
		attachment("c1", "one", hook.Pod{}), attachment("c10", "ten", hook.Pod{}),
		attachment("sandbox:eth0:lan", "pod", hook.Pod{Sandbox: "sandbox", Namespace: "prod", Name: "web-0"}),
	}
	for i := range recs {
		recs[i].ID[0] = byte(0xa0 + i)
	}
	for id, want := range map[string]string{
		long: "web db", long[:12]: "web db", long + ":eth1:lan": "db", long + ":eth1": "db", long + ":eth": "ambiguous",
		"c1": "one", "c10": "ten", "c": "ambiguous", "sandbox": "pod", "prod/web-0": "pod",
		"a2": "one", "nowhere": "no container",
	} {
		found, err := find(recs, id)
		var names []string
		for _, a := range found {
			names = append(names, a.Network)
		}
		if got := strings.Join(names, " "); got != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q finds %q, %v; want %q", id, got, err, want)
		}
	}
	if got := abbreviate(recs[0].Containers[0].ID, false); got != long[:12] {
		t.Errorf("it is listed as %q", got)
	}
}
