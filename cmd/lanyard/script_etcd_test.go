//go:build !vm

package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestScriptsEtcd runs the scripts that need an etcd server.
func TestScriptsEtcd(t *testing.T) {
	runScripts(t, "testdata/script-etcd", testenv.Config{})
}
