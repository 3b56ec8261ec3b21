//go:build !vm

package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// What commands make of the words that are typed is the same on every kernel.
func TestScriptsWords(t *testing.T) {
	runScripts(t, "testdata/script-words", testenv.Config{})
}
