package hook

import "testing"

// Starts of one second have ids that begin alike: what is named after a part of one
// must be named after what is random in it.
func TestNamesOfOneSecond(t *testing.T) {
	tags, names := map[string]bool{}, map[string]bool{}
	const starts = 1000
	for range starts {
		id := newID()
		tags[guardTag(id)], names[temporaryName(id)] = true, true
	}
	if len(tags) != starts || len(names) != starts {
		t.Errorf("%d starts have %d tags and %d names", starts, len(tags), len(names))
	}
}
