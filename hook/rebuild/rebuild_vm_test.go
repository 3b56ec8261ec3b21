//go:build vm

package rebuild_test

import (
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
)

// TestRebuildLeavesForeignIPvlans is TestRebuildLeavesForeignLinks for ipvlans, which no trunk's map
// knows.
func TestRebuildLeavesForeignIPvlans(t *testing.T) { rebuildWithForeign(t, network.DriverIPvlan) }
