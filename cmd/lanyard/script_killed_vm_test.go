//go:build vm && failpoint

package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestScriptsKilled kills the administrator's commands at each step, by
// LANYARD_FAILPOINT.
func TestScriptsKilled(t *testing.T) {
	runScripts(t, "testdata/script-killed", testenv.Config{VLANs: []uint16{50}})
}
