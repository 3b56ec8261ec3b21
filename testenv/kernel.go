package testenv

import (
	"flag"
	"os"
	"testing"
)

// OnOneKernel leaves a test to one of the virtual machine's kernels where all tests are
// run, such as "6.12": podman, systemd, 4,094 links and 64 hooks at once take minutes of
// an emulated processor, and ask of the kernel what other tests ask of each. Outside of
// the machine, and where -run names it, it runs on any.
func OnOneKernel(t *testing.T, series string) {
	t.Helper()
	here := os.Getenv("LANYARD_VM")
	if flag.Lookup("test.run").Value.String() == "" && here != "" && here != series {
		t.Skipf("runs on %s, or where -run names it", series)
	}
}
