//go:build vm

package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

func TestScriptsVLAN(t *testing.T) {
	runScripts(t, "testdata/script-vm", testenv.Config{VLANs: []uint16{50, 60}})
}

// TestScriptsMany runs commands with all VLANs of a trunk. A command whose time is
// quadratic in the number of networks would not end.
func TestScriptsMany(t *testing.T) {
	testenv.ByName(t)
	runScripts(t, "testdata/script-many", testenv.Config{VLANs: []uint16{2, 4094}}, runcCmds)
}
