package driver

import (
	"testing"

	"github.com/lanyard-net/lanyard/hook/record"
)

// TestNamesOfOneSecond checks that names which contain a part of an id contain a random part: ids
// of the same second begin with the same bytes.
func TestNamesOfOneSecond(t *testing.T) {
	tags, names := map[string]bool{}, map[string]bool{}
	const starts = 1000
	for range starts {
		id := record.NewID()
		tags[guardTag(id)], names[temporaryName(id)] = true, true
	}
	if len(tags) != starts || len(names) != starts {
		t.Errorf("%d starts have %d tags and %d names", starts, len(tags), len(names))
	}
}
