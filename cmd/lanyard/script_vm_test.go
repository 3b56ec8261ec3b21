//go:build vm

package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

func TestScriptsVLAN(t *testing.T) {
	runScripts(t, "testdata/script-vm", testenv.Config{VLANs: []uint16{50, 60}})
}
