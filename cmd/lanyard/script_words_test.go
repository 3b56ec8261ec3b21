//go:build !vm

package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestScriptsWords tests the parsing of command lines, which is the same on every kernel.
func TestScriptsWords(t *testing.T) {
	runScripts(t, "testdata/script-words", testenv.Config{})
}
